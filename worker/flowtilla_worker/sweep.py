"""One sweep over what runs leave behind in Redis and in storage, and over what RQ's own maintenance would clean."""

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any

from redis.exceptions import ResponseError
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from flowtilla import keys
from flowtilla.errors import InvalidName
from flowtilla.settings import Settings
from flowtilla.storage import ArtifactStore
from flowtilla_worker.scripts import ADOPT, TIDY
from flowtilla_worker.trouble import tried
from flowtilla_worker.writer import Writer

_log = logging.getLogger("flowtilla.worker")

#: How many names, and ended runs, a sweep takes at most.
_AT_ONCE = 1000

#: How many runs one command looks at, since it keeps Redis from all else, and how many such pages of one key a sweep
#: does; the next goes on there.
_PAGE, _PAGES = 200, 50

#: Seconds until files that could not be removed are tried again: others wait behind them.
_LATER = 3600

#: What a run leaves in storage besides its artifacts, which outlive it.
_AREAS = ("results", "logs", "checkpoints")

#: Job statuses of a run that somebody queued again after it had ended.
_ALIVE = (b"queued", b"started", b"scheduled", b"deferred")


class Sweep:
    """Sweeps up for the whole fleet.

    Nothing that Redis holds is imported, called or asked over a network, as RQ's maintenance does with the callbacks
    and webhooks of jobs; and nothing that it holds, damaged or not, keeps the rest from being swept.

    Args:
        writer: calls scripts.
        redis: an asyncio connection, for plain commands.
        settings: the worker's queues and lease, the storage, how long runs are kept.
    """

    def __init__(self, writer: Writer, redis: Any, settings: Settings) -> None:
        self._writer = writer
        self._redis = redis
        self._storage = settings.storage
        self._own = settings.services.worker
        self._keep = round(settings.retention)
        #: Where the next sweep goes on in keys too long for one.
        self._cursors: dict[str, int] = {}

    async def once(self) -> None:
        """Sweeps once.

        Raises:
            redis.exceptions.ConnectionError: Redis is away.
        """
        for queue in [*self._own.queues, *await self._other_queues()]:
            await tried(self._tidy(queue), f"cleaning RQ's registries of queue {queue}")
            for kind in ("wip", "canceled"):
                await tried(self._adopt(keys.registry(kind, queue)), f"looking through the {kind} runs of {queue}")
        for name in await tried(self._redis.srandmember(keys.NAMESPACES, _AT_ONCE), "reading the namespaces") or ():
            namespace = name.decode(errors="replace")
            await tried(self._adopt(keys.runs(namespace), namespace), f"looking through the runs of {namespace}")
        await tried(self._purge_ended(), "removing the files of ended runs")

    async def _other_queues(self) -> list[str]:
        """Returns queues that this worker does not serve."""
        found = await tried(self._redis.srandmember(keys.QUEUES, _AT_ONCE), "reading the queues") or ()
        names = []
        for key in found:
            with suppress(InvalidName):
                names.append(keys.queue_name(key.decode(errors="replace")))
        return [name for name in names if name not in self._own.queues]

    async def _tidy(self, queue: str) -> None:
        """Does for a queue what RQ's maintenance does, as far as flowtilla uses its registries."""
        registries = [keys.registry(kind, queue) for kind in ("finished", "failed")]
        names = (keys.WORKERS, WORKERS_BY_QUEUE_KEY % queue, *registries)
        await self._writer.call(TIDY, names, (int(time.time()), _AT_ONCE), patient=False)

    async def _adopt(self, key: str, namespace: str = "") -> None:
        """Sets right what the members of a registry, or of a namespace's index, say of runs."""
        cursor, trouble = self._cursors.pop(key, 0), b""
        prefixes = (keys.job(""), keys.RUN, keys.results(""), keys.registry("canceled", ""))
        for _ in range(_PAGES):
            cursor, page = await self._redis.zscan(key, cursor, count=_PAGE)
            adopted, *failed = await self._writer.call(
                ADOPT,
                (keys.LEASES, keys.ENDED, key),
                (round(self._own.lease * 1000), self._keep, namespace, *prefixes, *(member for member, _ in page)),
                patient=False,
            )
            for run_id in adopted:
                _log.warning(
                    "run %s was started and nobody held a lease on it; unless a worker renews it, it is queued again",
                    run_id.decode(errors="replace"),
                )
            trouble = trouble or b"".join(failed)
            if not cursor:
                break
        else:
            self._cursors[key] = cursor
        if trouble:
            raise ResponseError(trouble.decode(errors="replace"))

    async def _purge_ended(self) -> None:
        """Removes what ended runs left in storage, once their retention has passed."""
        for member in await self._redis.zrangebyscore(keys.ENDED, "-inf", time.time(), start=0, num=_AT_ONCE):
            await tried(self._purge(member), f"removing the files of {member!r:.200}")

    async def _purge(self, member: bytes) -> None:
        namespace, _, run_id = member.decode(errors="replace").partition("/")
        await self._redis.zadd(keys.ENDED, {member: time.time() + _LATER}, xx=True)
        status = None
        with suppress(ResponseError):
            status = await self._redis.hget(keys.job(run_id), "status")
        # RQ's requeue forgets to take the run from among the ended ones.
        if status not in _ALIVE:
            # What was no run of ours left no files.
            with suppress(InvalidName):
                await asyncio.to_thread(self._remove_files, namespace, run_id)
            await self._redis.zrem(keys.runs(namespace), run_id)
        await self._redis.zrem(keys.ENDED, member)

    def _remove_files(self, namespace: str, run_id: str) -> None:
        for area in _AREAS:
            ArtifactStore(self._storage, area).purge(namespace, run_id)

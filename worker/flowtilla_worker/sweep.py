"""One sweep over what runs leave behind in Redis and in storage, and over what RQ's own maintenance would clean."""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import OutOfMemoryError, ResponseError
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from flowtilla import keys
from flowtilla.errors import InvalidName, StorageError
from flowtilla.settings import Settings
from flowtilla.storage import ArtifactStore
from flowtilla.storage.staged import Staged
from flowtilla_worker.scripts import ADOPT, LET_IN, LINE_UP, TIDY
from flowtilla_worker.trouble import tried
from flowtilla_worker.writer import Writer

_log = logging.getLogger("flowtilla.worker")

#: How many names a sweep takes at most.
_AT_ONCE = 1000

#: Seconds that a sweep spends on the files of ended runs at most, and of how many it removes them at once: where the
#: storage is far away, removing is mostly waiting.
_PURGE_FOR, _PURGED_AT_ONCE = 30.0, 16

#: How many runs one command looks at, since it keeps Redis from all else, and how many such pages of one key a sweep
#: does; the next goes on there.
_PAGE, _PAGES = 200, 50

#: Seconds that a sweep has an ended run to itself: if it dies meanwhile, the next ones find the run due again. And
#: seconds until files that could not be removed are tried again: others wait behind them.
_HELD, _LATER = 60.0, 3600.0

#: What a run leaves in storage besides its artifacts, which outlive it once they are published.
_AREAS = ("results", "logs", "checkpoints")

#: Job statuses of a run that somebody queued again after it had ended.
_ALIVE = (b"queued", b"rate_limited", b"started", b"scheduled", b"deferred")


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
        for queue, lines in (await self._lines()).items():
            await tried(self._tidy(queue), f"cleaning RQ's registries of queue {queue}")
            await tried(self._line_up(queue, lines), f"looking through the lines of queue {queue}")
            for kind in ("wip", "canceled"):
                await tried(self._adopt(keys.registry(kind, queue)), f"looking through the {kind} runs of {queue}")
        for name in await tried(self._redis.srandmember(keys.NAMESPACES, _AT_ONCE), "reading the namespaces") or ():
            namespace = name.decode(errors="replace")
            await tried(self._adopt(keys.runs(namespace), namespace), f"looking through the runs of {namespace}")
        for key in await tried(self._redis.srandmember(keys.LIMITED, _AT_ONCE), "reading the limits") or ():
            await tried(self._let_in(key.decode(errors="replace")), f"looking through the limit {key!r:.200}")
        await tried(self._purge_ended(), "removing the files of ended runs")

    async def _lines(self) -> dict[str, list[str]]:
        """Returns the namespaces that have a line of their own in each queue, those that this worker serves first."""
        lines: dict[str, list[str]] = {queue: [] for queue in self._own.queues}
        for key in await tried(self._redis.srandmember(keys.QUEUES, _AT_ONCE), "reading the queues") or ():
            with suppress(InvalidName):
                queue, namespace = keys.line_name(key.decode(errors="replace"))
                lines.setdefault(queue, []).extend([namespace] if namespace else [])
        return lines

    async def _line_up(self, queue: str, namespaces: list[str]) -> None:
        """Lets every line take turns, and forgets runs that do not wait for a limit any more."""
        names = (keys.held(queue), keys.arrived(queue))
        await self._writer.call(LINE_UP, names, (queue, _AT_ONCE, *namespaces), patient=False)

    async def _let_in(self, limit: str) -> None:
        """Takes back the places that no run has any more."""
        await self._writer.call(LET_IN, (f"{keys.limit(limit)}:allowed",), (limit,), patient=False)

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
        began = time.monotonic()
        purged: Sequence[bool | None] = (True,)
        while any(purged) and time.monotonic() - began < _PURGE_FOR:
            due = await self._redis.zrangebyscore(keys.ENDED, "-inf", time.time(), start=0, num=_PURGED_AT_ONCE)
            if due:
                await self._put_off(due, _HELD)
            removing = [tried(self._purge(member), f"removing the files of {member!r:.200}") for member in due]
            purged = await asyncio.gather(*removing)

    async def _purge(self, member: bytes) -> bool:
        namespace, _, run_id = member.decode(errors="replace").partition("/")
        status = None
        with suppress(ResponseError):
            status = await self._redis.hget(keys.job(run_id), "status")
        # RQ's requeue forgets to take the run from among the ended ones.
        if status not in _ALIVE:
            # What was no run of ours left no files.
            with suppress(InvalidName):
                try:
                    await asyncio.to_thread(self._remove_files, namespace, run_id)
                except StorageError:
                    await self._put_off([member], _LATER)
                    raise
            await self._redis.zrem(keys.runs(namespace), run_id)
        await self._redis.zrem(keys.ENDED, member)
        return True

    async def _put_off(self, members: list[bytes], seconds: float) -> None:
        # When memory is full they stay where they are, and what they free is worth a try.
        with suppress(OutOfMemoryError):
            await self._redis.zadd(keys.ENDED, dict.fromkeys(members, time.time() + seconds), xx=True)

    def _remove_files(self, namespace: str, run_id: str) -> None:
        for area in _AREAS:
            ArtifactStore(self._storage, area).purge(namespace, run_id)
        Staged(self._storage, namespace, run_id).purge()

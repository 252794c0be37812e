"""What every worker does for the whole fleet: takes runs back from dead workers, queues scheduled ones, sweeps up."""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError, ResponseError
from rq.utils import utcformat

from flowtilla import keys
from flowtilla.errors import FlowtillaError, InvalidName
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactStore
from flowtilla_worker.scripts import PROMOTE, REAP
from flowtilla_worker.writer import Writer

_log = logging.getLogger("flowtilla.worker")

#: Seconds between two looks for expired leases and due runs, and between two sweeps.
_LOOK = 1.0
_SWEEP = 60.0

#: How much one look or sweep does at most.
_AT_ONCE = 1000

#: What a run leaves in storage besides its artifacts, which outlive it.
_AREAS = ("results", "logs", "checkpoints")


class Housekeeping:
    """Looks after the fleet's queues until its task is cancelled.

    Args:
        writer: calls scripts.
        redis: an asyncio connection, for plain commands.
        queues: the worker's queues.
        lease: seconds that the fleet is patient when Redis was away, for those who could not renew.
        storage: where ended runs left files.
    """

    def __init__(
        self, writer: Writer, redis: Any, queues: Sequence[str], lease: float, storage: StorageSettings
    ) -> None:
        self._writer = writer
        self._redis = redis
        self._queues = queues
        self._lease = lease
        self._storage = storage

    async def run(self) -> None:
        """Does it for ever."""
        swept = time.monotonic() - random.uniform(0, _SWEEP)
        while True:
            try:
                await self.look()
            except ResponseError as error:
                _log.error("looking for expired leases failed, it is tried again: %s", error)
            if time.monotonic() - swept >= _SWEEP:
                swept = time.monotonic()
                try:
                    await self.sweep()
                except (RedisError, OSError, FlowtillaError) as error:
                    _log.warning("sweeping up after ended runs failed, it is tried again: %s", error)
            # Workers that were started together do not look together for ever.
            await asyncio.sleep(_LOOK * random.uniform(0.8, 1.2))

    async def look(self) -> None:
        """Takes back runs whose lease expired, and queues scheduled ones whose time has come."""
        prefixes = (keys.job(""), keys.registry("wip", ""), keys.queue(""), keys.wake(""), keys.worker(""))
        calls = [self._writer.call(REAP, (keys.LEASES, keys.LOOKED), (_AT_ONCE, round(self._lease * 1000), *prefixes))]
        now = time.time()
        for queue in self._queues:
            names = (keys.registry("scheduled", queue), keys.queue(queue), keys.QUEUES)
            stamp = utcformat(datetime.fromtimestamp(now, UTC))
            calls.append(self._writer.call(PROMOTE, names, (now, keys.job(""), keys.wake(queue), stamp)))
        reaped, *_ = await asyncio.gather(*calls)
        for run_id in reaped:
            _log.warning(
                "run %s: its lease expired, so it is queued again: its worker died or froze",
                run_id.decode(errors="replace"),
            )

    async def sweep(self) -> None:
        """Removes what ended runs leave behind once their retention has passed."""
        over = await self._redis.zrangebyscore(keys.ENDED, "-inf", time.time(), start=0, num=_AT_ONCE)
        for member in over:
            namespace, _, run_id = member.decode(errors="replace").partition("/")
            # What was no run of ours left no files.
            with suppress(InvalidName):
                await asyncio.to_thread(self._purge, namespace, run_id)
            await self._redis.zrem(keys.runs(namespace), run_id)
            await self._redis.zrem(keys.ENDED, member)
        for name in await self._redis.smembers(keys.NAMESPACES):
            await self._forget_deleted(name.decode())

    async def _forget_deleted(self, namespace: str) -> None:
        """Removes runs from the index whose job somebody deleted; the oldest first."""
        oldest = await self._redis.zrange(keys.runs(namespace), 0, 99)
        for run_id in oldest:
            if not await self._redis.exists(keys.job(run_id.decode())):
                await self._redis.zrem(keys.runs(namespace), run_id)

    def _purge(self, namespace: str, run_id: str) -> None:
        for area in _AREAS:
            ArtifactStore(self._storage, area).purge(namespace, run_id)

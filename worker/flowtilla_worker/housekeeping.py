"""What every worker does for the whole fleet: takes runs back from dead workers, queues scheduled ones, sweeps up."""

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rq.utils import utcformat

from flowtilla import keys
from flowtilla.settings import Settings
from flowtilla_worker.scripts import PROMOTE, REAP, SWEEP_DUE
from flowtilla_worker.sweep import Sweep
from flowtilla_worker.trouble import for_ever, tried
from flowtilla_worker.writer import Writer

_log = logging.getLogger("flowtilla.worker")

#: Seconds between two looks for expired leases and due runs, and between two sweeps by whichever worker's turn it is.
_LOOK = 1.0
_SWEEP = 25.0

#: How many expired leases one look takes at most.
_AT_ONCE = 1000


class Housekeeping:
    """Looks after the fleet's queues until its task is cancelled.

    Args:
        writer: calls scripts.
        redis: an asyncio connection, for plain commands.
        settings: the worker's queues and lease, the storage, how long runs are kept.
    """

    def __init__(self, writer: Writer, redis: Any, settings: Settings) -> None:
        self._writer = writer
        self._own = settings.services.worker
        self._sweep = Sweep(writer, redis, settings)

    async def run(self) -> None:
        """Does it for ever; a sweep, which may take its time, keeps nobody from looking."""
        await asyncio.gather(
            for_ever(self.look, "looking for expired leases and due runs", _LOOK), self._sweep_in_turn()
        )

    async def look(self) -> None:
        """Takes back runs whose lease expired, and queues scheduled ones whose time has come."""
        reaped, *_ = await asyncio.gather(
            tried(self._reap(), "looking for expired leases"),
            *(tried(self._promote(queue), f"looking for due runs of queue {queue}") for queue in self._own.queues),
        )
        for run_id in reaped or ():
            _log.warning(
                "run %s: its lease expired, so it is queued again: its worker died or froze",
                run_id.decode(errors="replace"),
            )

    async def sweep(self) -> None:
        """Sweeps up what runs left behind."""
        await self._sweep.once()

    async def _reap(self) -> Sequence[bytes]:
        prefixes = (keys.job(""), keys.registry("wip", ""), keys.worker(""))
        lease = round(self._own.lease * 1000)
        # Not patient, here and below: what Redis refuses now is looked at again soon, and must hold up no run's writes.
        reaped: Sequence[bytes] = await self._writer.call(
            REAP, (keys.LEASES, keys.LOOKED), (_AT_ONCE, lease, *prefixes), patient=False
        )
        return reaped

    async def _promote(self, queue: str) -> None:
        now = time.time()
        stamp = utcformat(datetime.fromtimestamp(now, UTC))
        scheduled = keys.registry("scheduled", queue)
        await self._writer.call(PROMOTE, (scheduled,), (queue, now, keys.job(""), stamp), patient=False)

    async def _sweep_in_turn(self) -> None:
        # Not at once: a worker that came for one run leaves it to the others.
        await asyncio.sleep(_SWEEP / 5)
        await for_ever(self._sweep_if_due, "sweeping up", _SWEEP / 5)

    async def _sweep_if_due(self) -> None:
        if await self._writer.call(SWEEP_DUE, (keys.SWEPT,), (round(_SWEEP * 1000),), patient=False):
            await self.sweep()

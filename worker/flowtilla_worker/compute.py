"""The worker's executor, kept running: started in the background, watched, and started again when its cluster dies."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from flowtilla.errors import ClusterLost, ClusterUnreachable
from flowtilla_executors import Executor, LogSink

_log = logging.getLogger("flowtilla.worker")

#: Seconds before the executor is started again: the first pause, doubled each time, and the longest.
_PAUSE, _LONGEST = 1.0, 30.0

#: A cluster that lived so many seconds has proved itself: the next pause is the first again.
_PROVED = 60.0

#: Seconds after which a reason that has not changed is logged again.
_REMIND = 300.0

#: Seconds that closing the executor may take before it is started again, which must not begin while the other goes on.
_CLEAR_AWAY = 30.0


class Compute:
    """Keeps an executor running.

    Args:
        executor: runs stages; started and closed here.
        modules: imported where stages run.
        changed: called when the executor has become ready, is no longer, or something else is to be said of it.
        lost: takes the reason when the cluster is gone: what ran on it must end.
    """

    def __init__(
        self,
        executor: Executor[Any],
        modules: Sequence[str],
        changed: Callable[[], None],
        lost: Callable[[ClusterLost], None],
    ) -> None:
        self.executor = executor
        #: Whether stages can run, since when that is so, and what there is to say of the cluster, or why not.
        self.ready, self.since, self.detail = False, datetime.now(UTC), "it is starting"
        #: Whether something that did not end when it was told to may still run in a thread.
        self.stuck = False
        self._modules = modules
        self._changed = changed
        self._lost = lost
        self._pause = _PAUSE
        self._starting = False
        self._told, self._told_at = "", 0.0
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._reported: asyncio.Future[ClusterLost] | None = None

    def begin(self, log_sink: LogSink, patient: bool) -> asyncio.Task[None]:
        """Begins to keep the executor running.

        Args:
            log_sink: takes lines that stages write.
            patient: whether to wait for a cluster that cannot be reached.

        Returns:
            What ends only by `close`, or with the error of a first start that another try would not mend.
        """
        self._task = asyncio.create_task(self._keep(log_sink, patient))
        return self._task

    def report(self, error: ClusterLost) -> None:
        """Takes note that a call found the cluster gone, perhaps before the executor's own watch did."""
        if self._reported is not None and not self._reported.done():
            self._reported.set_result(error)

    async def close(self, seconds: float) -> None:
        """Stops, and closes the executor, as far as that is possible in so many seconds."""
        if self._task is None:
            return
        begun = time.monotonic()
        # Cancelled, a start may still go on in a thread.
        interrupted = self._starting
        self._task.cancel()
        ended, _ = await asyncio.wait({self._task}, timeout=seconds / 2)
        closed = await self._close_executor(begun + seconds - time.monotonic())
        self.stuck = not closed or interrupted or not ended

    async def _keep(self, log_sink: LogSink, patient: bool) -> None:
        await self._start(log_sink, patient, first=True)
        while True:
            error = await self._loss()
            if (datetime.now(UTC) - self.since).total_seconds() >= _PROVED:
                self._pause = _PAUSE
            self._turn(False, str(error))
            self._lost(error)
            if not await self._close_executor(_CLEAR_AWAY):
                _log.warning("the %s executor does not close; it is started again all the same", self.executor.kind)
            await self._rest()
            await self._start(log_sink, patient, first=False)

    async def _start(self, log_sink: LogSink, patient: bool, first: bool) -> None:
        while True:
            self._starting = True
            try:
                await self.executor.start(log_sink, self._modules)
                break
            except Exception as error:
                unreachable = isinstance(error, ClusterUnreachable)
                # What was right once may be so again: only the first start can be hopeless.
                if (unreachable and not patient) or (first and not unreachable):
                    raise
                self._explain(error)
            finally:
                self._starting = False
            await self._rest()
        self._told = ""
        detail = self.executor.info().detail
        self._turn(True, detail)
        _log.info("the %s executor is ready: %s", self.executor.kind, detail)

    async def _loss(self) -> ClusterLost:
        """Waits until the cluster is gone, as the executor or one of its calls finds."""
        self._reported = asyncio.get_running_loop().create_future()
        watch = asyncio.ensure_future(self.executor.lost())
        try:
            done, _ = await asyncio.wait({watch, self._reported}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
        return done.pop().result()

    async def _close_executor(self, patience: float) -> bool:
        """Closes the executor; returns whether that has ended within so many seconds."""
        if self._closing is None or self._closing.done():
            self._closing = asyncio.create_task(self.executor.close())
        ended, _ = await asyncio.wait({self._closing}, timeout=patience)
        for one in ended:
            if not one.cancelled() and (error := one.exception()) is not None:
                _log.warning("closing the %s executor failed: %s", self.executor.kind, error)
        return bool(ended)

    async def _rest(self) -> None:
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST)
        await asyncio.sleep(pause * random.uniform(0.8, 1.2))

    def _explain(self, error: Exception) -> None:
        """Says why there is no cluster: each new reason once, and rarely again."""
        reason = str(error) or type(error).__name__
        self._turn(False, reason)
        if reason != self._told or time.monotonic() - self._told_at >= _REMIND:
            self._told, self._told_at = reason, time.monotonic()
            _log.warning("the %s executor could not be started, it is tried again: %s", self.executor.kind, reason)

    def _turn(self, ready: bool, detail: str) -> None:
        if ready != self.ready:
            self.ready, self.since = ready, datetime.now(UTC)
        self.detail = detail
        self._changed()

"""One call of the Ray executor, on the worker's side."""

import asyncio
from collections import deque

from flowtilla.errors import ClusterLost
from flowtilla_executors.call import Call
from flowtilla_executors.outcome import Outcome


class Handle:
    """What `submit` returns; the value stays in the cluster as long as it, or a call that takes the value.

    Args:
        number: unique; what the driver process calls it.
        call: what runs.
        dropped: takes the number when the last reference to this goes, on any thread.
    """

    def __init__(self, number: int, call: Call, dropped: "deque[int]") -> None:
        self.number = number
        self.call = call
        self.outcome: Outcome | None = None
        self.error: ClusterLost | None = None
        #: When it began to run, as the worker heard; only calls with a timeout tell.
        self.started: float | None = None
        self.timer: asyncio.TimerHandle | None = None
        #: Done when nothing of it runs any more; from when it was stopped.
        self.leaving: asyncio.Future[None] | None = None
        self._dropped = dropped
        self._waiters: list[asyncio.Future[None]] = []

    def __del__(self) -> None:
        self._dropped.append(self.number)

    @property
    def settled(self) -> bool:
        """Whether it is known how it ended."""
        return self.outcome is not None or self.error is not None

    @property
    def valueless(self) -> bool:
        """Whether it ended without a value."""
        return self.outcome is not None and (self.outcome.failure is not None or self.outcome.early)

    def settle(self, outcome: Outcome | None = None, error: ClusterLost | None = None) -> None:
        """Sets how it ended and wakes who waits for it; what comes later is ignored."""
        if not self.settled:
            self.outcome, self.error = outcome, error
            if self.timer is not None:
                self.timer.cancel()
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters = []

    async def wait(self) -> Outcome:
        """Returns how it ended, as soon as it has.

        Raises:
            ClusterLost: nobody will ever know.
        """
        if not self.settled:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if self.error is not None:
            raise self.error
        assert self.outcome is not None
        return self.outcome

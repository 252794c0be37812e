"""One call of the Dask executor, from `submit` to its outcome."""

import asyncio
from collections.abc import Sequence
from weakref import WeakSet

from distributed import Future

from flowtilla.errors import ClusterLost
from flowtilla_executors.call import Call
from flowtilla_executors.outcome import Outcome


class Handle:
    """What `submit` returns; the value stays in the cluster as long as it lives. Used only in the event loop.

    Args:
        call: what runs.
        parents: what its arguments refer to; kept until the call has ended.
    """

    def __init__(self, call: Call, parents: Sequence["Handle"]) -> None:
        #: Of the task; another one when the call is made again.
        self.key = ""
        self.call = call
        self.parents = tuple(parents)
        self.children: WeakSet[Handle] = WeakSet()
        #: The task's value, a `Kept`; None when there is none, or nobody may have it.
        self.future: Future | None = None
        #: The last that the task said of its end; it counts once the scheduler has its value.
        self.said: Outcome | None = None
        self.outcome: Outcome | None = None
        self.started: float | None = None
        #: Parts of a collection, which its value refers to.
        self.parts: list[Future] = []
        #: How the processes that it ran in died.
        self.deaths: list[str] = []
        #: Ends the call when it takes too long.
        self.clock: asyncio.TimerHandle | None = None
        #: Settles the call when its task ends.
        self.following: asyncio.Task[None] | None = None
        #: Done when nothing of it runs any more; from when it was stopped.
        self.leaving: asyncio.Future[None] | None = None
        self._lost: ClusterLost | None = None
        self._done = asyncio.get_running_loop().create_future()
        for parent in parents:
            parent.children.add(self)

    def settle(self, outcome: Outcome) -> None:
        """Sets how the call ended; what comes later is ignored."""
        if not self.settled:
            self.outcome = outcome
            self._end()

    def lose(self, error: ClusterLost) -> None:
        """Says that nobody will ever know how the call ended."""
        if not self.settled:
            self._lost = error
            self._end()

    def left(self) -> None:
        """Takes note that nothing of a call that was stopped runs any more."""
        if self.leaving is not None and self.leaves:
            self.leaving.set_result(None)

    @property
    def settled(self) -> bool:
        """Whether it is known how the call ended."""
        return self._done.done()

    @property
    def has_value(self) -> bool:
        """Whether the call succeeded, or may yet."""
        return self.outcome is None or not (self.outcome.failure or self.outcome.early)

    async def wait(self) -> Outcome:
        """Returns how the call ended, as soon as that is known."""
        if not self.settled:
            await asyncio.shield(self._done)
        if self._lost is not None:
            raise self._lost
        assert self.outcome is not None
        return self.outcome

    @property
    def leaves(self) -> bool:
        """Whether it was stopped, and may still run."""
        return self.leaving is not None and not self.leaving.done()

    def stop_clock(self) -> None:
        """Forgets the time at which the call takes too long."""
        if self.clock is not None:
            self.clock.cancel()
            self.clock = None

    def _end(self) -> None:
        self.stop_clock()
        self.parents = ()
        self._done.set_result(None)

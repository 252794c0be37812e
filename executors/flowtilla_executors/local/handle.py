"""One call of the Local executor, from `submit` to its outcome, and the child process that runs it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from flowtilla.cancellation import Cancellation
from flowtilla_executors.call import Call
from flowtilla_executors.local.spawn import Process
from flowtilla_executors.outcome import LIVES, Outcome
from flowtilla_executors.values import Snapshot

#: How much of each resource a call takes.
Need = tuple[tuple[str, float], ...]


class Handle:
    """What `submit` returns; the value lives as long as it, or a call that takes the value.

    Args:
        number: unique, and higher than that of every earlier call.
        call: what runs.
        parents: the values its arguments refer to, until it ends.
        need: what it takes of the executor's resources.
    """

    def __init__(self, number: int, call: Call, parents: list[Snapshot], need: Need) -> None:
        self.number = number
        self.call = call
        self.parents = parents
        self.need = need
        self.priority = call.priority
        self.kept: Snapshot | None = None
        self.outcome: Outcome | None = None
        self.started: float | None = None
        #: How many processes may still die with it.
        self.lives = LIVES
        #: It was given room; the outcome may come long before it gives the room back.
        self.admitted = False
        #: For processes: what travels to the child.
        self.payload: Snapshot | None = None
        #: For threads: what asks it to stop, from its beginning.
        self.cancellation: Cancellation | None = None
        #: Nothing of it runs any more, nor will.
        self.left = False
        self._waiters: list[asyncio.Future[None]] = []

    def settle(self, kept: Snapshot | None, outcome: Outcome) -> None:
        """Sets how the call ended and wakes who waits for it; what comes later is ignored. Only in the event loop."""
        if self.outcome is None:
            self.kept, self.outcome, self.parents = kept, outcome, []
            self._wake()

    def leave(self) -> None:
        """Takes note that nothing of it runs any more. Only in the event loop."""
        self.left = True
        self._wake()

    async def wait(self) -> Outcome:
        """Returns how the call ended, as soon as that is known."""
        while self.outcome is None:
            await self._news()
        return self.outcome

    async def gone(self) -> None:
        """Waits until nothing of it runs any more."""
        while not self.left:
            await self._news()

    @property
    def settled(self) -> bool:
        """Whether the outcome is there: a call cancelled or late may still be running."""
        return self.outcome is not None

    async def _news(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


@dataclass(eq=False, slots=True)
class Child:
    """A child process, and the call it runs.

    Args:
        process, connection: the child.
        handle: the call.
        heeds: whether the call will notice that it is to stop.
        retired: whether the child is gone, or about to be.
    """

    process: Process
    connection: Connection
    handle: Handle | None = None
    heeds: bool = False
    retired: bool = False


#: Told once of every call that takes no more room, from any thread; the outcome is None when it came before.
Ended = Callable[[Handle, Snapshot | None, Outcome | None], None]

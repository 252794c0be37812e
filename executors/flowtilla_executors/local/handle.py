"""One call of the Local executor, from `submit` to its outcome."""

import asyncio
from collections.abc import Callable

from flowtilla_executors.call import Call
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
        self.waiters: list[asyncio.Future[None]] = []
        #: It was given room; the outcome may come long before it gives the room back.
        self.admitted = False
        #: For processes: what travels to the child.
        self.payload: Snapshot | None = None

    def settle(self, kept: Snapshot | None, outcome: Outcome) -> None:
        """Sets how the call ended and wakes who waits for it; what comes later is ignored. Only in the event loop."""
        if self.outcome is None:
            self.kept, self.outcome, self.parents = kept, outcome, []
            for waiter in self.waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self.waiters = []

    async def wait(self) -> Outcome:
        """Returns how the call ended, as soon as it has."""
        if self.outcome is None:
            waiter = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            await waiter
        assert self.outcome is not None
        return self.outcome

    @property
    def settled(self) -> bool:
        """Whether the outcome is there: a call cancelled or late may still be running."""
        return self.outcome is not None


#: Told once of every call that takes no more room, from any thread; the outcome is None when it came before.
Ended = Callable[[Handle, Snapshot | None, Outcome | None], None]

"""Who may run now: calls take what they need of the executor's resources and give it back."""

import math
import threading
from collections import deque

from flowtilla_executors.local.handle import Handle, Need

#: Shares such as 0.1 do not add up exactly.
_ROUNDING = 1e-9


class Room:
    """Lets calls in, those of the highest priority first, then first come first served; may be used from any thread.

    A later call passes an earlier one only if it leaves alone what the first in line waits for, so nobody starves.

    Args:
        total: how much there is of each resource.
    """

    def __init__(self, total: dict[str, float]) -> None:
        self._free = dict(total)
        # Calls that need the same, with the same priority, wait in one queue: if its first does not fit, none does.
        self._queues: dict[tuple[int, Need], deque[Handle]] = {}
        self._lock = threading.Lock()

    def enter(self, handle: Handle) -> list[Handle]:
        """Puts a call in line; returns the calls that may run now."""
        with self._lock:
            self._queues.setdefault((-handle.priority, handle.need), deque()).append(handle)
            return self._admitted()

    def leave(self, handle: Handle) -> list[Handle]:
        """Takes back what a call took; returns the calls that may run now."""
        with self._lock:
            for name, amount in handle.need:
                self._free[name] += amount
            return self._admitted()

    def admit(self) -> list[Handle]:
        """Returns the calls that may run now that others in line have been settled."""
        with self._lock:
            return self._admitted()

    def close(self) -> None:
        """Sends everybody in line away."""
        with self._lock:
            self._queues.clear()

    def _admitted(self) -> list[Handle]:
        admitted = []
        while self._queues and (handle := self._next()) is not None:
            for name, amount in handle.need:
                self._free[name] -= amount
            handle.admitted = True
            admitted.append(handle)
        return admitted

    def _next(self) -> Handle | None:
        kept_for_first: dict[str, float] = {}
        for waiting in sorted(self._queues, key=self._first_in_line):
            queue, need = self._queues[waiting], waiting[1]
            if queue and not all(self._has(name, amount, kept_for_first) for name, amount in need):
                kept_for_first = kept_for_first or dict(need)
                continue
            handle = queue.popleft() if queue else None
            if not queue:
                del self._queues[waiting]
            if handle is not None:
                return handle
        return None

    def _first_in_line(self, waiting: tuple[int, Need]) -> tuple[int, float]:
        """Returns where a queue's first call stands among all, having sent away those that were cancelled."""
        queue = self._queues[waiting]
        while queue and queue[0].settled:
            queue.popleft()
        return waiting[0], queue[0].number if queue else math.inf

    def _has(self, name: str, amount: float, kept_for_first: dict[str, float]) -> bool:
        return self._free[name] - kept_for_first.get(name, 0.0) >= amount - _ROUNDING

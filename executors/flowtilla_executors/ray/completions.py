"""Hears from Ray that calls have ended, in its driver process."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ray

#: Seconds until Ray is asked to tell of a call that others of the same turn wait for.
_LATER = 0.05

#: Seconds that Ray may take to say again what it must have: how calls ended whose values were taken.
_AT_HAND = 1.0


@dataclass(eq=False, slots=True)
class Entry:
    """One call.

    Args:
        number: what the worker calls it; the parents' are smaller.
        value: Ray's reference to what it leaves.
        reply: to how it ended.
        parents: the calls whose values it takes, until it ends.
        ended: how it ended, once that is known here.
        asked: whether Ray was asked to tell when it ends.
        hears: whether the call wants to be told that it is to stop.
        stopped: whether it is to stop.
        late: what kills it then, unless it has ended before.
    """

    number: int
    value: Any
    reply: Any
    parents: list["Entry"]
    ended: "Future[Any]" = field(default_factory=Future)
    asked: bool = False
    hears: bool = False
    stopped: bool = False
    late: threading.Timer | None = None


class Completions:
    """Tells of calls that have ended.

    To be told of each call costs Ray's driver a sixth of its time. So of calls that come in one turn Ray is asked for
    those alone that no other of them takes: when one has ended, so have all that it waited for. What takes long is
    not kept back for that: a little later Ray is asked for the others too.

    Args:
        tell: takes calls that have ended, parents before their children; called on several threads.
    """

    def __init__(self, tell: Callable[[list[Entry]], None]) -> None:
        self._tell = tell
        self._turn: list[Entry] = []
        self._later: deque[tuple[float, list[Entry]]] = deque()
        #: Calls that have ended, with parents that Ray was not asked for; None says that `_later` has become longer.
        self._last: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._asking = threading.Lock()

    def add(self, entry: Entry) -> None:
        """Takes a call that Ray has been given."""
        self._turn.append(entry)

    def end_turn(self) -> None:
        """Takes note that what was added since the last time is all that the worker had to say at once."""
        if not self._turn:
            return
        taken = {parent.number for entry in self._turn for parent in entry.parents}
        if waited_for := [entry for entry in self._turn if entry.number in taken]:
            self._later.append((time.monotonic() + _LATER, waited_for))
            if len(self._later) == 1:
                self._last.put(None)
        for entry in self._turn:
            if entry.number not in taken:
                self.ask(entry)
        self._turn = []

    def ask(self, entry: Entry) -> None:
        """Has Ray tell when a call ends, unless it was asked before."""
        for each in self._unasked([entry]):
            self._listen(each)

    def serve(self) -> None:
        """Looks after those that Ray was not asked for, for ever."""
        while True:
            wait = self._later[0][0] - time.monotonic() if self._later else None
            if wait is not None and wait <= 0:
                for entry in self._unasked(self._later.popleft()[1]):
                    self._listen(entry)
                continue
            try:
                last = self._last.get(timeout=wait)
            except queue.Empty:
                continue
            if last is not None:
                self._tell([*self._ended_before(last), last])

    def _ended_before(self, last: Entry) -> list[Entry]:
        """Returns what a call that has ended waited for, and nobody has told of, in order."""
        found = self._unasked(_ancestors(last))
        try:
            replies = ray.get([entry.reply for entry in found], timeout=_AT_HAND)
        except Exception:
            for entry in found:
                self._listen(entry)  # which says what it is
            return []
        for entry, reply in zip(found, replies, strict=True):
            entry.ended.set_result(reply)
        return found

    def _unasked(self, entries: Iterable[Entry]) -> list[Entry]:
        """Returns those that Ray was not asked for; the caller does."""
        with self._asking:
            found = [entry for entry in entries if not entry.asked]
            for entry in found:
                entry.asked = True
        return found

    def _listen(self, entry: Entry) -> None:
        entry.reply.future().add_done_callback(partial(self._hear, entry))

    def _hear(self, entry: Entry, ended: "Future[Any]") -> None:
        """Takes how a call ended; on a thread of Ray's, which must not wait for Ray."""
        if (error := ended.exception()) is not None:
            # It may be gone before what it waited for, which is asked for by itself.
            entry.ended.set_exception(error)
            self._tell([entry])
            return
        entry.ended.set_result(ended.result())
        if all(parent.asked for parent in entry.parents):
            self._tell([entry])
        else:
            self._last.put(entry)


def _ancestors(entry: Entry) -> list[Entry]:
    """Returns what a call waited for and Ray was not asked for, in order, up to what it was asked for."""
    found: dict[int, Entry] = {}
    above = [entry]
    while above:
        for parent in above.pop().parents:
            if not parent.asked and parent.number not in found:
                found[parent.number] = parent
                above.append(parent)
    return [found[number] for number in sorted(found)]

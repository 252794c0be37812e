"""The deputy's process: renews a worker's leases while something holds the worker's interpreter."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

#: A worker is overdue when it has been silent for so many heartbeats.
_OVERDUE = 1.5

#: The states of a process that does not run: stopped, traced, dead.
_NOT_RUNNING = "TtZXx"

#: Run id and token of each run in hand.
Held = Sequence[tuple[str, str]]


class Slate:
    """What a worker lets its deputy know, in memory that both have: neither waits for the other.

    Args:
        file: the descriptor of a file.
    """

    def __init__(self, file: int) -> None:
        self._file = file

    def write(self, beaten: float, held: Held) -> None:
        """Notes when the worker's heart beat last, by the machine's clock, and what it holds."""
        os.pwrite(self._file, json.dumps([beaten, held]).encode() + b"\n", 0)

    def read(self) -> tuple[float, Held]:
        """Returns what was noted."""
        text, _, _ = os.pread(self._file, os.fstat(self._file).st_size, 0).partition(b"\n")
        try:
            beaten, held = json.loads(text)
        except ValueError:
            # It is being written: whoever writes is at work.
            return time.monotonic(), []
        return beaten, held


class _StandIn:
    """Renews for a worker when that is overdue, and ends with it.

    Args:
        worker: its process.
        slate: what it lets its deputy know.
        told: what else is to be known: see `Deputy`.
    """

    def __init__(self, worker: int, slate: Slate, told: dict[str, Any]) -> None:
        self._worker = worker
        self._slate = slate
        self._told = told
        self._heartbeat: float = told["heartbeat"]
        self._turns = 0
        self._dropped: set[str] = set()
        self._redis: Any = None

    def watch(self) -> None:
        wait = 0.0
        # Both are asked: a process that a stage forked may hold the pipe open.
        while not select.select([0], [], [], wait)[0] and os.getppid() == self._worker:
            beaten, held = self._slate.read()
            wait = beaten + _OVERDUE * self._heartbeat - time.monotonic()
            if wait > 0:
                self._turns = 0
                self._dropped.clear()
            else:
                wait = self._heartbeat
                self._stand_in([one for one in held if one[0] not in self._dropped])

    def _stand_in(self, held: Held) -> None:
        if not held or not _runs(self._worker):
            return
        # Imported when it is needed, which is rarely: until then this process takes a fifth of the memory.
        from flowtilla_worker import stood_in

        self._turns += 1
        ...


def _runs(process: int) -> bool:
    """Returns whether a process is neither stopped nor traced nor dead."""
    if sys.platform == "linux":
        try:
            with open(f"/proc/{process}/stat") as file:
                # The name before it may hold anything.
                return file.read().rpartition(")")[2].split()[0] not in _NOT_RUNNING
        except OSError:
            return False
    done = subprocess.run(["ps", "-o", "state=", "-p", str(process)], capture_output=True, text=True)
    return done.stdout.strip()[:1] not in ("", *_NOT_RUNNING)

"""The deputy's own process: renews a worker's leases while something holds the worker's interpreter.

What it needs for that is imported when it is needed: until then it takes a fifth of the memory.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

#: A worker is overdue when it has been silent for so many heartbeats.
_OVERDUE = 1.5

#: The states of a process that does not run: stopped, traced, dead.
_NOT_RUNNING = "TtZXx"


class Slate:
    """What a worker lets its deputy know, in memory that both have: neither ever waits for the other.

    Args:
        file: the descriptor of a file without a name.
    """

    def __init__(self, file: int) -> None:
        self._file = file

    def write(self, beaten: float, held: Sequence[tuple[str, str]]) -> None:
        """Notes when the worker's heart beat last, by the machine's clock, and run id and token of each run in hand."""
        os.pwrite(self._file, json.dumps([beaten, held]).encode() + b"\n", 0)

    def read(self) -> tuple[float, list[tuple[str, str]]]:
        """Returns what was written."""
        text, _, _ = os.pread(self._file, os.fstat(self._file).st_size, 0).partition(b"\n")
        try:
            beaten, held = json.loads(text)
        except ValueError:
            # It is being written at this moment: who writes is at work.
            return time.monotonic(), []
        return beaten, [(run_id, token) for run_id, token in held]


def main() -> None:
    """Watches over the worker that started this process, and ends with it."""
    # They are meant for the worker, which may go on for a while; this ends when its standard input does.
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    worker = os.getppid()
    if told := sys.stdin.buffer.readline():
        _watch(worker, Slate(int(sys.argv[1])), json.loads(told))


def _watch(worker: int, slate: Slate, told: dict[str, Any]) -> None:
    renew: Callable[[list[tuple[str, str]]], set[str]] | None = None
    stood_in, dropped = 0.0, set[str]()
    wait = 0.0
    while not select.select([0], [], [], wait)[0] and os.getppid() == worker:
        beaten, held = slate.read()
        wait = beaten + _OVERDUE * told["heartbeat"] - time.monotonic()
        if wait > 0:
            stood_in, dropped = 0.0, set()
            continue
        wait = told["heartbeat"]
        held = [(run_id, token) for run_id, token in held if run_id not in dropped]
        if not held or stood_in > told["longest"] or not _runs(worker):
            continue
        renew = renew or _renewal(worker, told)
        if not stood_in:
            ...

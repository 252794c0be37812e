"""Sessions of processes: what a driver process and its Ray started, which ends with it."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

#: Seconds within which all are gone.
_PATIENCE = 3.0

_PR_SET_CHILD_SUBREAPER = 36


def end(leader: int) -> None:
    """Kills all processes of a session but the one that calls.

    Args:
        leader: the session's id, the pid of the process that opened it.
    """
    deadline = time.monotonic() + _PATIENCE
    while (left := _members(leader)) and time.monotonic() < deadline:
        _signal(left, signal.SIGKILL)
        time.sleep(0.01)


def end_own(last: Callable[[], None]) -> None:
    """Kills all other processes of this one's session, which it opened; no dead one lingers.

    Args:
        last: what must be done for certain: Ray ends this process as soon as both raylet and worker are gone.
    """
    if sys.platform.startswith("linux"):
        # Those whose parents die first become children of this process, and not of one that may not take note.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for _ in range(2):  # one may just have started another
        _signal(_members(os.getpid()), signal.SIGSTOP)
    last()
    end(os.getpid())
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _members(leader: int) -> list[int]:
    """Returns the living processes of a session, children of the one that asks last, without itself."""
    found = []
    for pid, parent, state in _linux() if sys.platform.startswith("linux") else _others():
        with contextlib.suppress(OSError):  # it has just gone
            if pid != os.getpid() and state not in "ZX" and os.getsid(pid) == leader:
                found.append((parent == os.getpid(), pid))
    return [pid for _, pid in sorted(found)]


def _linux() -> Iterator[tuple[int, int, str]]:
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
                yield int(path.name), int(parent), state


def _others() -> Iterator[tuple[int, int, str]]:
    for line in subprocess.check_output(["ps", "-A", "-o", "pid=,ppid=,state="], text=True).splitlines():
        pid, parent, state = line.split()
        yield int(pid), int(parent), state[0]

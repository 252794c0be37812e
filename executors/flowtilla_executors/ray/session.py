"""Sessions of processes: what a driver process and its Ray started, which ends with it."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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
    while (left := list(_members(leader))) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def end_own() -> None:
    """Kills all other processes of this one's session, which it opened; no dead one lingers."""
    if sys.platform.startswith("linux"):
        # Those whose parents die first become children of this process, and not of one that may not take note.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    end(os.getpid())
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _members(leader: int) -> Iterator[int]:
    """Gives the living processes of a session, but for the one that asks."""
    for pid, state in _linux() if sys.platform.startswith("linux") else _others():
        with contextlib.suppress(OSError):  # it has just gone
            if pid != os.getpid() and state not in "ZX" and os.getsid(pid) == leader:
                yield pid


def _linux() -> Iterator[tuple[int, str]]:
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(path.name), (path / "stat").read_text().rpartition(")")[2].split()[0]


def _others() -> Iterator[tuple[int, str]]:
    for line in subprocess.check_output(["ps", "-A", "-o", "pid=,state="], text=True).splitlines():
        pid, state = line.split()
        yield int(pid), state[0]

"""Stops calls that run in threads of a Dask worker, as far as Python lets one.

A thread cannot be killed. One that runs Python code gets an exception at its next instruction, again every second
until its call has ended; one that sits in C code, when that returns. A stage that looks at `context().cancelled`, or
registered clean-up, gets the exception only when it has had the time to end by itself.
"""

import ctypes
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from flowtilla.cancellation import GRACE, Cancellation
from flowtilla_executors.dask.deaths import Ledger

_SetAsyncExc = ctypes.pythonapi.PyThreadState_SetAsyncExc

#: Seconds until a thread that caught the exception, or tidies up, gets it again, and until it is seen to that it does.
_AGAIN, LOOK = 1.0, 0.25

#: How many calls that must not begin are remembered.
_FORBIDDEN = 10_000

#: When calls may begin in this process, as `time.monotonic` has it: a nanny gives up on a process that dies before it
#: has heard of its start.
settled = 0.0

#: What this process tells its nanny, if it has one.
ledger: Ledger | None = None


class Stopped(BaseException):
    """Raised in a stage that was cancelled or took too long."""


class Running:
    """One call, while it runs in this thread.

    Args:
        key: the call's.
    """

    def __init__(self, key: str) -> None:
        self.cancellation = Cancellation()
        self._key = key
        self._force_at: float | None = None
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._open = True

    def __enter__(self) -> Self:
        if (early := settled - time.monotonic()) > 0:
            time.sleep(early)
        with _lock:
            if self._key in _forbidden:
                raise Stopped
            _running[self._key] = self
        if ledger is not None:
            ledger.begin(self._key)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.leave()
        except Stopped:  # it was on its way
            self.leave()

    def stop(self) -> bool:
        """Asks the call to end, from another thread; returns whether it was still running."""
        now = time.monotonic()
        if self._force_at is None:
            self._force_at = now + (GRACE if self.cancellation.heeds else 0)
        self.cancellation.request()
        with self._lock:
            if self._open and now >= self._force_at:
                self._force_at = now + _AGAIN
                _SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(Stopped))
            return self._open

    def leave(self) -> None:
        """Takes note, in the call's own thread, that it does not run any more; once is enough."""
        if self._thread != threading.get_ident():
            return
        with self._lock:
            self._open = False
        # What is on its way must not hit the thread's next task.
        _SetAsyncExc(ctypes.c_ulong(self._thread), None)
        if ledger is not None:
            ledger.end(self._key)
        _running.pop(self._key, None)


_running: dict[str, Running] = {}
_forbidden: OrderedDict[str, None] = OrderedDict()
_lock = threading.Lock()


def stop(key: str) -> bool:
    """Asks a call to end, if it runs here; returns whether it still does."""
    running = _running.get(key)
    return running is not None and running.stop()


def leave(key: str) -> None:
    """Ends what a call left open here: the exception may land where `Running` opens and closes, and end that halfway.

    Whoever catches it must do so: the call would count as running for ever, and what this thread runs next be stopped.
    """
    if (running := _running.get(key)) is not None:
        running.leave()


def forbid(keys: Sequence[str]) -> list[str]:
    """Keeps calls from beginning here, and asks those that run to end; returns these."""
    for key in keys:
        with _lock:
            _forbidden[key] = None
            while len(_forbidden) > _FORBIDDEN:
                _forbidden.popitem(last=False)
    return [key for key in keys if stop(key)]

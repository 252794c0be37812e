"""Stops calls that run in threads of a Dask worker, as far as Python lets one.

A thread cannot be killed. One that runs Python code gets an exception at its next instruction, again every second
until its call has ended; one that sits in C code, when that returns. `context().cancelled` is true at once.
"""

import ctypes
import threading
from types import TracebackType
from typing import Self

_SetAsyncExc = ctypes.pythonapi.PyThreadState_SetAsyncExc

#: Seconds until a thread that caught the exception gets it again.
AGAIN = 1.0


class Stopped(BaseException):
    """Raised in a stage that was cancelled or took too long."""


class Running:
    """One call, while it runs in this thread.

    Args:
        key: the call's.
    """

    def __init__(self, key: str) -> None:
        self.stopped = False
        self._key = key
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._open = True

    def __enter__(self) -> Self:
        _running[self._key] = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        while self._open or _running.get(self._key) is self:
            try:
                self._leave()
            except Stopped:  # it was on its way
                continue

    def stop(self) -> bool:
        """Asks the call to end, from another thread; returns whether it was still running."""
        self.stopped = True
        with self._lock:
            if self._open:
                _SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(Stopped))
            return self._open

    def _leave(self) -> None:
        with self._lock:
            self._open = False
        # What is on its way must not hit the thread's next task.
        _SetAsyncExc(ctypes.c_ulong(self._thread), None)
        _running.pop(self._key, None)


_running: dict[str, Running] = {}


def stop(key: str) -> bool:
    """Asks a call to end, if it runs here; returns whether it still does."""
    running = _running.get(key)
    return running is not None and running.stop()

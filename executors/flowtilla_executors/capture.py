"""What stages print and log becomes lines that say who wrote them.

`install` puts proxies in place of `sys.stdout` and `sys.stderr` and a handler on the root logger. They look at a
context variable: inside a stage they record; outside, output goes where it always went. A thread that a stage starts
inherits the stage's context; one that was there before does not, unless `contextvars.copy_context` gives it a copy.
What a stage's subprocesses and C code write to the descriptors themselves is not seen.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, TextIO, cast

from flowtilla.context import Context
from flowtilla.logs import LogLine
from flowtilla_executors.recorder import Recorder

_recorder: ContextVar[Recorder | None] = ContextVar("flowtilla_recorder", default=None)

_start_thread = threading.Thread.start
_lock = threading.Lock()
_users = 0


def active() -> Recorder | None:
    """Returns the recorder of the stage that is running here, or None."""
    found = _recorder.get()
    return found if found is not None and found.open else None


@contextmanager
def recording(context: Context, emit: Callable[[Sequence[LogLine]], None] | None) -> Iterator[Recorder]:
    """Records what the code inside writes.

    Args:
        context: whom the lines belong to; while a stage's own context is entered, that one.
        emit: takes lines while the code still runs, from any thread, or None.
    """
    if _users:
        # Somebody may have put others in place: a test runner, or a stage's module that configures logging.
        if not (isinstance(sys.stdout, _Stream) and isinstance(sys.stderr, _Stream)):
            _replace_streams()
        if _HANDLER not in (root := logging.getLogger()).handlers:
            root.addHandler(_HANDLER)
    recorder = Recorder(context, emit)
    token = _recorder.set(recorder)
    try:
        yield recorder
    finally:
        _recorder.reset(token)
        recorder.close()


def install() -> None:
    """Begins to watch this process's output; each call needs an `uninstall`."""
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _replace_streams()
            logging.getLogger().addHandler(_HANDLER)
            _STAGE_LOGGER.setLevel(logging.INFO)
            threading.Thread.start = _start_in_context  # type: ignore[assignment,method-assign]


def uninstall() -> None:
    """Puts everything back when the last who called `install` is done."""
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            threading.Thread.start = _start_thread  # type: ignore[method-assign]
            _STAGE_LOGGER.setLevel(logging.NOTSET)
            logging.getLogger().removeHandler(_HANDLER)
            for name in ("stdout", "stderr"):
                if isinstance(stream := getattr(sys, name), _Stream):
                    setattr(sys, name, stream.real)


def _replace_streams() -> None:
    for name in ("stdout", "stderr"):
        if not isinstance(stream := getattr(sys, name), _Stream):
            setattr(sys, name, cast(TextIO, _Stream(name, stream)))


def _start_in_context(thread: threading.Thread) -> None:
    if active() is not None:
        context, run = copy_context(), thread.run
        thread.run = lambda: context.run(run)  # type: ignore[method-assign]
    _start_thread(thread)


class _Stream:
    """Stands in for `sys.stdout` or `sys.stderr`."""

    def __init__(self, name: str, real: TextIO) -> None:
        self._source = name
        self.real = real

    def write(self, text: str) -> int:
        recorder = active()
        return self.real.write(text) if recorder is None else recorder.write(self._source, text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if active() is None:
            self.real.flush()

    def isatty(self) -> bool:
        return active() is None and self.real.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class _Handler(logging.Handler):
    """Hands what a stage logs to its recorder."""

    # Not `emit`: the lock around it is for handlers that share a stream.
    def handle(self, record: logging.LogRecord) -> bool:
        if (recorder := active()) is not None:
            try:
                recorder.add(record.name, record.levelname, _FORMAT(record), record.created)
            except Exception:
                self.handleError(record)
        return True


_HANDLER = _Handler()
_FORMAT = logging.Formatter().format
_STAGE_LOGGER = logging.getLogger("flowtilla.stage")

"""The lines of one call: taken as they are written, sent on while it runs, the rest handed over at its end."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache

from flowtilla.context import Context, current
from flowtilla.logs import LogLine

#: Characters of one line that are kept.
LONGEST = 16 * 1024

#: Seconds until a line is sent on while its stage still runs.
INTERVAL = 0.1

_LEVELS = {"stdout": "INFO", "stderr": "WARNING"}

host = cache(socket.gethostname)


class Recorder:
    """Takes the lines of one call, from any of its threads.

    Args:
        context: whom the lines belong to; while a stage's own context is entered, that one.
        emit: takes lines while the call runs; what it refuses with an OSError is handed over at the end.
    """

    def __init__(self, context: Context, emit: Callable[[Sequence[LogLine]], None] | None) -> None:
        self.open = True
        self._context = context
        self._emit = emit
        self._lines: list[LogLine] = []
        self._begun: dict[tuple[str, int], str] = {}
        # Reentrant, because a finaliser may print in the middle of anything.
        self._lock = threading.RLock()

    def write(self, source: str, text: str) -> int:
        """Takes text as a stream does, line by line."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        writer = (source, threading.get_ident())
        with self._lock:
            *lines, rest = (self._begun.pop(writer, "") + text).split("\n")
            for line in lines:
                self.add(source, _LEVELS[source], line)
            if rest:
                self._begun[writer] = _visible(rest)[: LONGEST + 1]
        return len(text)

    def add(self, source: str, level: str, message: str, when: float | None = None) -> None:
        """Takes one whole line."""
        context = current() or self._context
        line = LogLine(
            run_id=context.run_id,
            stage=context.stage,
            item=context.item,
            attempt=context.attempt,
            time=time.time() if when is None else when,
            host=host(),
            source=source,
            level=level,
            message=_clean(message),
        )
        with self._lock:
            self._lines.append(line)
            if self._emit is not None and self.open and len(self._lines) == 1:
                _flusher.mark(self)

    def end_lines(self) -> None:
        """Ends the lines that lack a newline, at the end of an item or of the call."""
        if self._begun:
            with self._lock:
                begun, self._begun = self._begun, {}
                for (source, _), text in begun.items():
                    self.add(source, _LEVELS[source], text)

    def close(self) -> None:
        """Records no more."""
        self.end_lines()
        self.open = False

    def send(self) -> None:
        """Sends on what there is."""
        with self._lock:
            if self._emit is not None and self._lines:
                with contextlib.suppress(OSError):
                    self._emit(self._lines)
                    self._lines = []

    def take(self) -> tuple[LogLine, ...]:
        """Returns the lines not sent on, and forgets them; waits for a sending under way."""
        self.end_lines()
        if not self._lines:
            return ()
        with self._lock:
            lines, self._lines = self._lines, []
        return tuple(lines)


def _visible(line: str) -> str:
    """Returns what a terminal would show of a line that carriage returns overwrite."""
    body = line.rstrip("\r")
    return line[body.rfind("\r") + 1 :]


def _clean(line: str) -> str:
    line = _visible(line).rstrip("\r\n")
    if len(line) > LONGEST:
        line = line[:LONGEST] + "…"
    return line if line.isascii() else line.encode("utf-8", "backslashreplace").decode()


class _Flusher:
    """One thread per process that sends lines on; it sleeps until somebody writes one."""

    def __init__(self) -> None:
        self._dirty: set[Recorder] = set()
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def mark(self, recorder: Recorder) -> None:
        with self._lock:
            self._dirty.add(recorder)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="flowtilla-logs", daemon=True)
                self._thread.start()
        self._wanted.set()

    def flush(self) -> None:
        with self._lock:
            dirty, self._dirty = self._dirty, set()
        for recorder in dirty:
            recorder.send()

    def _work(self) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            time.sleep(INTERVAL)
            self.flush()


_flusher = _Flusher()
flush = _flusher.flush

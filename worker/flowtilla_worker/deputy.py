"""A small process beside a worker whose stages run in threads of it: one that holds the GIL stops all others."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from pydantic import SecretStr

from flowtilla.settings import Settings
from flowtilla_worker.leases import Held
from flowtilla_worker.stand_in import Slate
from flowtilla_worker.trouble import complain

#: Seconds for which leases are renewed for a worker that does not beat: what lasts longer may last for ever.
LONGEST = 15 * 60.0

#: Seconds that the process has to end by itself.
_GONE = 0.5


class Deputy:
    """Has a worker's leases renewed while a stage holds the worker's interpreter, so that its heart cannot beat.

    Args:
        settings: the worker's.
        longest: seconds for which they are renewed at most.
    """

    def __init__(self, settings: Settings, longest: float = LONGEST) -> None:
        self._settings = settings
        self._longest = longest
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def begin(self, name: str, held: Callable[[], Held]) -> None:
        """Starts the process, which is there soon.

        Args:
            name: the worker's name in the fleet.
            held: returns run id and token of each run in hand; called from any thread.
        """
        self._name = name
        self._held = held
        self._file = _nameless_file()
        self._slate = Slate(self._file.fileno())
        self.beaten()

    def beaten(self) -> None:
        """Takes note that the worker's heart beats, and starts the process again if it has died."""
        with self._lock:
            if not self._closed:
                self._beaten = time.monotonic()
                self._slate.write(self._beaten, self._held())
                if self._process is None or self._process.poll() is not None:
                    self._start()

    def taken(self) -> None:
        """Takes note of further runs in hand. Their stages must not have begun, or one may hold the interpreter."""
        with self._lock:
            self._slate.write(self._beaten, self._held())

    def close(self) -> None:
        """Ends the process; nothing that comes after it counts."""
        with self._lock:
            self._closed = True
            self._end()
            self._file.close()

    def _start(self) -> None:
        self._end()
        file = self._file.fileno()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flowtilla_worker.stand_in", str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[file],
            )
            assert self._process.stdin is not None
            # Open until this process ends: so does the other then.
            self._process.stdin.write(self._told())
            self._process.stdin.flush()
        except OSError as error:
            complain("starting the deputy", error)

    def _end(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(_GONE)
            except subprocess.TimeoutExpired:
                # A process that a stage forked may hold the pipe open. It has nothing to put in order.
                self._process.kill()
                self._process.wait()
            self._process = None

    def _told(self) -> bytes:
        own = self._settings.services.worker
        told = {
            "name": self._name,
            "heartbeat": own.heartbeat,
            "lease": own.lease,
            "longest": self._longest,
            "redis": self._settings.redis.model_dump(),
            "logging": self._settings.logging.model_dump(),
        }
        return json.dumps(told, default=SecretStr.get_secret_value).encode() + b"\n"


def _nameless_file() -> IO[Any]:
    """Returns a file that is gone with the last process that has it open; on Linux it is in memory only."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("flowtilla-deputy"), "r+b")
    return tempfile.TemporaryFile()

"""A server that never outlives the process that started it."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_GUARD = Path(__file__).with_name("guard.py")

#: Seconds a server has between SIGTERM and SIGKILL.
_GRACE = 5.0


class Guarded:
    """A running command, ended by `stop`, or by the end of this process, whatever ends it.

    It runs in a session of its own: Ctrl-C at the terminal reaches this process, which ends it when it is due.

    Args:
        command: the program and its arguments.
        log: where its output goes.
        keep_open: descriptors it holds as long as it lives.
        env: its environment; this process's when None.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: IO[bytes],
        keep_open: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARD), str(_GRACE), *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=keep_open,
            env=env,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._input = self._process.stdin

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def hold(self) -> int:
        """A descriptor that keeps it alive: a process that inherits it has the command until both have ended."""
        return self._input.fileno()

    def stop(self) -> None:
        """Ends it and waits until it is gone; stopping twice is harmless."""
        self._process.terminate()
        self._input.close()
        self._process.wait()

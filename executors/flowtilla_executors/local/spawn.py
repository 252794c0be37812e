"""Child processes that start clean and end at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import popen_spawn_posix, spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

_launching = threading.Lock()


class Process(SpawnProcess):
    """A child of a session of its own, which ends with it."""

    def end(self) -> None:
        """Kills the child and whatever it started."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self.kill()  # for one too young to have a session

    @staticmethod
    def _Popen(process: Any) -> Any:
        with _without_main():
            return popen_spawn_posix.Popen(process)


class Context(SpawnContext):
    """The `multiprocessing` context whose processes are ours."""

    Process = Process


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keeps a child from importing the worker's main script, which may be slow, or start a worker itself."""
    prepare, thread = spawn.get_preparation_data, threading.get_ident()

    def bare(name: str) -> dict[str, Any]:
        data = prepare(name)
        if threading.get_ident() == thread:
            data.pop("init_main_from_name", None)
            data.pop("init_main_from_path", None)
        return data

    with _launching:
        spawn.get_preparation_data = bare
        try:
            yield
        finally:
            spawn.get_preparation_data = prepare

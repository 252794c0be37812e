"""Child processes that start clean and end at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import popen_spawn_posix, spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

#: What `exitcode` says of a child that ended itself with 0 in the middle of a call; pebble would take 0 for no news.
ENDED_WITH_ZERO = 256

_launching = threading.Lock()


class Process(SpawnProcess):
    """A child that is killed, with what its stage started, instead of being asked to end."""

    def terminate(self) -> None:
        if self.is_alive() and self.pid is not None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no group of its own yet
                self.kill()

    @property
    def exitcode(self) -> int | None:
        code = super().exitcode
        return ENDED_WITH_ZERO if code == 0 else code

    @staticmethod
    def _Popen(process: Any) -> Any:
        with _without_main():
            return popen_spawn_posix.Popen(process)


class Context(SpawnContext):
    """The `multiprocessing` context whose processes are ours."""

    Process = Process


@contextmanager
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

"""Who was running when a worker process died, and how it died: Dask itself blames every call that it held.

A worker process notes the calls it runs in a small mapped file, which outlives it; its nanny reads that when the
process has ended, and tells everybody who listens.
"""

import mmap
import threading
from pathlib import Path
from typing import Any

from distributed import Nanny, Worker
from distributed.diagnostics.plugin import NannyPlugin

from flowtilla_executors.dask.channel import TOPICS

#: Where nannies tell of deaths.
TOPIC = TOPICS + "deaths"

_SIZE = 64 * 1024


class Ledger:
    """The calls that run in this process, in a file that its nanny finds.

    Args:
        worker: of this process.
    """

    def __init__(self, worker: Worker) -> None:
        self._running: list[str] = []
        self._lock = threading.Lock()
        self._address = worker.address
        path = _place(Path(worker.local_directory).parent, worker.nanny)
        with path.open("wb+") as file:
            file.truncate(_SIZE)
            self._page = mmap.mmap(file.fileno(), _SIZE)
        self._write()

    def begin(self, key: str) -> None:
        """Notes that a call runs."""
        with self._lock:
            self._running.append(key)
            self._write()

    def end(self, key: str) -> None:
        """Notes that it does not run any more, if it was noted."""
        with self._lock:
            if key in self._running:
                self._running.remove(key)
                self._write()

    def _write(self) -> None:
        text = "\n".join([self._address, *self._running]).encode()[: _SIZE - 1] + b"\0"
        self._page[: len(text)] = text


class OnNanny(NannyPlugin):
    """Tells how the worker process of a nanny died, and what it ran."""

    name = "flowtilla"

    def setup(self, nanny: Nanny) -> None:
        if "_on_worker_exit_sync" in vars(nanny):
            return  # another flowtilla process saw to it
        restart = nanny._on_worker_exit_sync

        def exited(code: int) -> None:
            # By the nanny's address: it may not yet know that of a process that died young.
            if noted := _noted(_place(Path(nanny.local_directory), nanny.address)):
                nanny.log_event(TOPIC, {"address": noted[0], "code": code, "running": noted[1:]})
            restart(code)

        setattr(nanny, "_on_worker_exit_sync", exited)  # noqa: B010
        if nanny.process is not None:
            nanny.process.on_exit = exited


def _noted(path: Path) -> list[str]:
    try:
        text = path.read_bytes().partition(b"\0")[0].decode()
        path.unlink()
    except OSError:
        return []
    return text.split("\n")


def _place(folder: Path, nanny: Any) -> Path:
    return folder / f"flowtilla-running-{nanny.rpartition(':')[2]}"

"""The deputy's own process: it renews a worker's leases while something holds the worker's interpreter."""

import json
import logging
import math
import os
import select
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowtilla_worker.leases import Held

_log = logging.getLogger("flowtilla.worker")

#: A worker that has not beaten for so many heartbeats is overdue.
_OVERDUE = 1.5

#: The states of a process that does not run: stopped, traced, dead.
_NOT_RUNNING = "TtZXx"


class Slate:
    """What a worker lets its deputy know, in a file that both have open: neither waits for the other.

    Args:
        file: its descriptor.
    """

    def __init__(self, file: int) -> None:
        self._file = file

    def write(self, beaten: float, held: "Held") -> None:
        """Notes when the worker beat last, by the machine's clock, and what it holds."""
        text = json.dumps([beaten, held]).encode()
        os.pwrite(self._file, b"%08x%s\n" % (zlib.crc32(text), text), 0)

    def read(self) -> "tuple[float, Held]":
        """Returns what was noted."""
        line, _, _ = os.pread(self._file, os.fstat(self._file).st_size, 0).partition(b"\n")
        checksum, text = line[:8], line[8:]
        if checksum != b"%08x" % zlib.crc32(text):
            # It is being written at this moment: who writes is at work.
            return time.monotonic(), []
        beaten, held = json.loads(text)
        return beaten, [(run_id, token) for run_id, token in held]


class StandIn:
    """Renews for a worker that is overdue though it runs.

    Args:
        worker: the worker's process, which started this one.
        slate: what the worker lets it know.
        told: what else a `Deputy` was given: the worker's `name`, `heartbeat` and `lease`, `longest`, and the settings
            `redis` and `logging`.
    """

    def __init__(self, worker: int, slate: Slate, told: dict[str, Any]) -> None:
        self._worker = worker
        self._slate = slate
        self._told = told
        self._heartbeat: float = told["heartbeat"]
        self._renew: Callable[[Held], tuple[bool, Held, Held]] | None = None
        #: For how many seconds it has renewed since the worker beat last, and the runs for which it does not.
        self._seconds = 0.0
        self._dropped: set[tuple[str, str]] = set()

    def watch(self) -> None:
        """Looks after the worker until that is gone."""
        wait = 0.0
        # Standard input ends with the worker, unless a process that a stage forked holds it open.
        while not select.select([0], [], [], wait)[0] and os.getppid() == self._worker:
            beaten, held = self._slate.read()
            wait = beaten + _OVERDUE * self._heartbeat - time.monotonic()
            if wait > 0:
                self._seconds = 0.0
                self._dropped.clear()
                continue
            wait = self._heartbeat
            held = [one for one in held if one not in self._dropped]
            # A worker that is stopped or dead is to lose what it holds.
            if held and _runs(self._worker):
                if self._seconds < self._told["longest"]:
                    wait = self._stand_in(held)
                elif self._seconds < math.inf:
                    self._give_up(held)

    def _stand_in(self, held: "Held") -> float:
        """Renews the leases of runs, and returns in how many seconds it is to be done again."""
        # Imported when it is needed, which is rarely: until then this process takes a third of the memory.
        from flowtilla_worker.trouble import complain

        pause = self._heartbeat
        try:
            self._renew = self._renew or self._connected()
            _, lost, cancelled = self._renew(held)
            # Nobody can stop a run here that is to be cancelled: whoever takes it over ends it.
            self._dropped.update(lost, cancelled)
        except Exception as error:
            complain("renewing leases for a worker that does not", error)
            pause = min(1.0, pause)
        if not self._seconds:
            _log.warning(
                "worker %s (process %d) runs but does not beat, perhaps since a stage in one of its threads holds the "
                "interpreter. Its leases are renewed for it, for %g s at most; runs: %d",
                self._told["name"],
                self._worker,
                self._told["longest"],
                len(held),
            )
        self._seconds += pause
        return pause

    def _give_up(self, held: "Held") -> None:
        self._seconds = math.inf
        _log.error(
            "worker %s (process %d) has not beaten for %g s: its leases are renewed no more, and other workers take "
            "its runs: %s. Let such stages run in processes",
            self._told["name"],
            self._worker,
            self._told["longest"],
            ", ".join(run_id for run_id, _ in held),
        )

    def _connected(self) -> Callable[["Held"], tuple[bool, "Held", "Held"]]:
        """Returns what renews leases, and gets ready to log."""
        from flowtilla.redis_settings import RedisSettings
        from flowtilla.settings import LoggingSettings
        from flowtilla_worker.connections import Connections
        from flowtilla_worker.leases import renew
        from flowtilla_worker.logsetup import configure_logging

        configure_logging(LoggingSettings.model_validate(self._told["logging"]))
        connections = Connections(RedisSettings.model_validate(self._told["redis"]))
        redis = connections.blocking(patience=self._told["lease"] / 2)
        return lambda held: renew(redis, self._told["name"], self._told["lease"], held)


def main() -> None:
    """Is the process that a `Deputy` starts."""
    # They are meant for the worker, which may go on for a while; with it this process ends.
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    worker = os.getppid()
    if told := sys.stdin.buffer.readline():
        StandIn(worker, Slate(int(sys.argv[1])), json.loads(told)).watch()


def _runs(process: int) -> bool:
    """Returns whether a process is neither stopped nor traced nor dead."""
    if sys.platform == "linux":
        try:
            # What stands before the state is the command's name, which may hold anything.
            state = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        except OSError:
            return False
    else:
        ps = subprocess.run(["ps", "-o", "state=", "-p", str(process)], capture_output=True, text=True)
        state = ps.stdout.strip() or "X"
    return state[0] not in _NOT_RUNNING


if __name__ == "__main__":
    main()

"""The fleet: one worker process per slot, which is killed, frozen, replaced, and started again when it died."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .faults import GIVEN_UP, Fault, Incidents
from .link import Link

#: Marks what workers started, their children's children too, in the environment.
MARK = "FLOWTILLA_TEST_CHAOS"

#: The exit code of a worker that finds no Redis when it starts; whoever keeps it up starts it again.
_QUEUE_AWAY = 4

#: Seconds within which a worker that was asked to stop must be gone: its grace and some.
DRAIN = 45.0


class Slot:
    """A place in the fleet that always has a worker.

    Args:
        number: which.
        folder: for its workers' logs.
        env: what all workers are told.
        queue: the port of the Redis.
        executor: where this one's stages run.
        incidents: takes what was done to it.
    """

    def __init__(
        self, number: int, folder: Path, env: dict[str, str], queue: int, executor: dict[str, Any], incidents: Incidents
    ) -> None:
        self.target = f"worker-{number}"
        #: Workers may die of poisonous runs, where stages run in the worker's own process.
        self.mortal = executor.get("mode") == "threads"
        self._folder, self._incidents = folder, incidents
        self._link = Link(queue)
        self._env = env | {
            "FLOWTILLA__REDIS__URL": f"redis://127.0.0.1:{self._link.port}/0",
            "FLOWTILLA__SERVICES__COMPUTE__EXECUTOR": json.dumps(executor),
        }
        self._generation = 0
        self._start()

    def do(self, fault: Fault) -> None:
        """Lets something go wrong with the worker, until it is right again."""
        began, name = time.time(), self.name
        if fault.kind == "deploy":
            return self._deploy()
        if fault.kind == "cut off":
            self._link.cut()
            time.sleep(fault.lasts)
            self._link.heal()
        elif fault.kind == "freeze":
            self._process.send_signal(signal.SIGSTOP)
            time.sleep(fault.lasts)
            self._process.send_signal(signal.SIGCONT)
        else:
            self._process.kill()
            if fault.kind == "kill with children":
                _kill(marked(self._mark))
            self._process.wait()
            time.sleep(fault.lasts)
            self._start()
        self._incidents.note(began, self.target, fault.kind, name)
        return None

    def tend(self) -> None:
        """Starts the worker again if it died of itself."""
        if (code := self._process.poll()) is not None:
            self._incidents.note(time.time(), self.target, "death", self.name, f"ended with {code}")
            if code != _QUEUE_AWAY and not self.mortal:
                self._incidents.complain(f"{self.name} ended with {code} and nobody had asked it to")
            self._start()

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def stopped(self) -> None:
        """Waits until the worker, which was asked to stop, is gone."""
        self._await(self._process, self.name)

    def kill(self) -> None:
        """Ends it and all that it started, whatever state they are in."""
        _kill([self._process.pid, *marked(self._mark)])
        self._process.wait()
        self._link.close()

    @property
    def _mark(self) -> str:
        return f"{self._env[MARK]}/{self.name}"

    def _deploy(self) -> None:
        began, process, name = time.time(), self._process, self.name
        process.send_signal(signal.SIGTERM)
        self._start()
        took = self._await(process, name)
        self._incidents.note(began, self.target, "deploy", name, f"drained in {took:.1f} s")

    def _await(self, process: "subprocess.Popen[bytes]", name: str) -> float:
        began = time.time()
        try:
            code = process.wait(DRAIN)
        except subprocess.TimeoutExpired:
            self._incidents.complain(f"{name} had not ended {DRAIN:.0f} s after SIGTERM")
            process.kill()
            process.wait()
        else:
            # One that was still starting may just end.
            began_work = "listens on" in self._log(name).read_text()
            if code == 1 and began_work:
                # It could not hand back a run, as it may while Redis is away: see `invariants.check_given_up`.
                self._incidents.note(began, self.target, GIVEN_UP, name)
            elif code and (began_work or code != -signal.SIGTERM):
                self._incidents.complain(f"{name} ended with {code} after SIGTERM")
        return time.time() - began

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _start(self) -> None:
        self._generation += 1
        # A name is the dead worker's until its record has run out; who replaces it has another.
        self.name = f"{self.target}.{self._generation}"
        with self._log(self.name).open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flowtilla.cli", "worker", "--name", self.name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self._env | {MARK: self._mark},
                cwd=self._folder,
                start_new_session=True,
            )


def marked(mark: str) -> list[int]:
    """Returns the living processes whose environment has a mark that begins so."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            with suppress(OSError):
                dead = (path / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                if not dead and f"{MARK}={mark}".encode() in (path / "environ").read_bytes():
                    found.append(int(path.name))
    return found


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

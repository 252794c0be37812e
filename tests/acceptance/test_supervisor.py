"""`flowtilla worker -n`: workers are kept running, told to stop, and never left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

import flowtilla
from fleet import until
from flowtilla.errors import RunQuarantined
from flowtilla_worker.dev.embedded import EmbeddedValkey

LISTENS = re.compile(r"worker (\S+) listens on")


class Fleet:
    """A `flowtilla worker -n` in a folder of its own, and what it says."""

    def __init__(self, folder: Path, url: str, *arguments: str) -> None:
        self._log = folder / "fleet.log"
        env = os.environ | {
            "FLOWTILLA__REDIS__URL": url,
            "FLOWTILLA__SERVICES__COMPUTE__EXECUTOR": "{target: local, mode: threads}",
        }
        command = [sys.executable, "-m", "flowtilla.cli", "worker", "--name", "fleet", *arguments]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, env=env, cwd=folder)

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def names(self) -> set[str]:
        return set(LISTENS.findall(self.said))


def pid_of(client: "redis.Redis[bytes]", name: str) -> int:
    pid = client.hget(f"rq:worker:{name}", "pid")
    assert pid is not None
    return int(pid)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own."""
    with EmbeddedValkey(tmp_path_factory.mktemp("server"), persistent=False) as server:
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator["redis.Redis[bytes]"]:
    """A connection to an empty server."""
    with redis.Redis.from_url(url) as connection:
        connection.flushdb()
        yield connection


@pytest.fixture
def start(tmp_path: Path, url: str, client: "redis.Redis[bytes]") -> Iterator[Callable[..., Fleet]]:
    """Starts fleets, and ends what is left of them."""
    fleets: list[Fleet] = []

    def begin(*arguments: str) -> Fleet:
        fleets.append(Fleet(tmp_path, url, *arguments))
        return fleets[-1]

    yield begin
    pids = [pid_of(client, name) for fleet in fleets for name in fleet.names if client.exists(f"rq:worker:{name}")]
    for pid in [*(fleet.process.pid for fleet in fleets if fleet.process.poll() is None), *pids]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for fleet in fleets:
        fleet.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_so_many_workers_and_stops_them_all(start: Callable[..., Fleet], number: signal.Signals) -> None:
    """`-n 3` is three processes named after the fleet; one signal drains all, and the exit code is 0."""
    fleet = start("-n", "3")
    until(lambda: fleet.names == {"fleet-1", "fleet-2", "fleet-3"})

    fleet.process.send_signal(number)

    assert fleet.process.wait(30) == 0
    assert fleet.said.count("asked to stop: finishing") == 3


def test_a_second_signal_goes_on_to_the_workers_too(
    start: Callable[..., Fleet], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first signal lets a run finish; the second makes its worker hand it back at once, and the fleet ends well."""
    (tmp_path / "slow.py").write_text("import time\ndef sleep():\n    print('asleep')\n    time.sleep(600)\n")
    monkeypatch.setenv("FLOWTILLA__SERVICES__WORKER__ALLOWED_TARGETS", "[slow.*]")
    fleet = start("-n", "2")
    until(lambda: len(fleet.names) == 2)
    with flowtilla.Client(url) as queue:
        run = queue.submit(flowtilla.Workflow("slow", [{"name": "sleep", "target": "slow.sleep"}]))
        until(lambda: run.state == "running")

        fleet.process.terminate()
        until(lambda: fleet.said.count("asked to stop: finishing") == 2)
        assert fleet.process.poll() is None
        fleet.process.terminate()

        assert fleet.process.wait(15) == 0
        assert run.state == "queued"


def test_a_worker_that_dies_is_started_again(start: Callable[..., Fleet], client: "redis.Redis[bytes]") -> None:
    """kill -9 of one is told with its signal, another takes its place at once, and the others know nothing of it."""
    fleet = start("-n", "2")
    until(lambda: len(fleet.names) == 2)
    other = pid_of(client, "fleet-1")

    os.kill(pid_of(client, "fleet-2"), signal.SIGKILL)

    until(lambda: "fleet-2-r1" in fleet.names)
    assert "worker fleet-2 ended with signal SIGKILL; starting it again in 0.5s" in fleet.said
    assert lives(other)
    fleet.process.terminate()
    assert fleet.process.wait(30) == 0


def test_a_run_whose_worker_dies_is_taken_over_at_once(
    start: Callable[..., Fleet], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease need not run out: the supervisor saw the worker die, and how, which a quarantined run tells."""
    (tmp_path / "deadly.py").write_text("import os\ndef dies():\n    os.kill(os.getpid(), 9)\n")
    monkeypatch.setenv("FLOWTILLA__SERVICES__WORKER__ALLOWED_TARGETS", "[deadly.*]")
    start("-n", "2")
    with flowtilla.Client(url) as queue:
        begun = time.monotonic()
        run = queue.submit(flowtilla.Workflow("deadly", [{"name": "dies", "target": "deadly.dies"}]))

        with pytest.raises(
            RunQuarantined,
            match=r"took its worker down 3 times in a row while dies ran.*"
            r"pid \d+ on .*, had signal SIGKILL, after it had used \d+ MiB of memory at most",
        ):
            run.result(timeout=60)

    # Three leases of ten seconds would be longer.
    assert time.monotonic() - begun < 20


def test_workers_end_with_a_supervisor_that_is_killed(
    start: Callable[..., Fleet], client: "redis.Redis[bytes]"
) -> None:
    """kill -9 of the supervisor makes its workers drain and end."""
    fleet = start("-n", "2")
    until(lambda: len(fleet.names) == 2)
    pids = [pid_of(client, name) for name in fleet.names]

    fleet.process.kill()

    until(lambda: not any(lives(pid) for pid in pids))
    assert fleet.said.count("asked to stop: finishing") == 2


def test_a_wrong_configuration_ends_the_fleet(start: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that refuse their configuration are not started for ever: the fleet ends with their exit code."""
    monkeypatch.setenv("FLOWTILLA__SERVICES__WORKER__MODULES", "[no_such_module]")

    fleet = start("-n", "2")

    assert fleet.process.wait(30) == 2
    assert "refuses its configuration: stopping" in fleet.said
    assert "'no_such_module' cannot be imported" in fleet.said


def test_a_fleet_in_a_burst_ends_when_its_workers_do(start: Callable[..., Fleet]) -> None:
    """`--burst` workers that have emptied their queues are not started again."""
    fleet = start("-n", "2", "--burst")

    assert fleet.process.wait(30) == 0
    assert "starting it again" not in fleet.said


def test_flags_reach_every_worker(start: Callable[..., Fleet]) -> None:
    """Queues given to the fleet, and their order, are each worker's."""
    fleet = start("-n", "2", "-q", "high", "-q", "low")

    until(lambda: fleet.said.count("listens on high, low") == 2)


def test_one_worker_may_have_a_supervisor_too(start: Callable[..., Fleet], client: "redis.Redis[bytes]") -> None:
    """With `-n 1`: it is restarted when it dies, and has the name that was given."""
    fleet = start("-n", "1")
    until(lambda: fleet.names == {"fleet"})

    os.kill(pid_of(client, "fleet"), signal.SIGKILL)

    until(lambda: "fleet-r1" in fleet.names)
    fleet.process.terminate()
    assert fleet.process.wait(30) == 0


def test_one_worker_needs_no_supervisor(start: Callable[..., Fleet], client: "redis.Redis[bytes]") -> None:
    """Without `-n` the worker is the process itself."""
    fleet = start()
    until(lambda: fleet.names == {"fleet"})

    assert pid_of(client, "fleet") == fleet.process.pid
    fleet.process.terminate()
    assert fleet.process.wait(30) == 0

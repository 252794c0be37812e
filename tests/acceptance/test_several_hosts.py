"""Queue, workers and clusters on hosts of their own; one is cut off without a word, and comes back."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import hosts
from fleet import LEASE, MODULES, until
from host_fleet import WORKERS, HostFleet, host_fleet

pytestmark = pytest.mark.skipif(bool(hosts.why_not()), reason=hosts.why_not() or "")

#: Installed beside Python.
RAY, DASK = (str(Path(sys.executable).with_name(name)) for name in ("ray", "dask"))

#: Starts a node again, whatever it ended of, as an operator's system would.
KEEP_UP = ("sh", "-c", 'while true; do "$@"; sleep 1; done', "keep")

#: A Ray head calls a silent node dead after half a minute; this one after 8 s.
RAY_SYSTEM = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 4,
}


@dataclass(frozen=True)
class Cluster:
    """A cluster of hosts.

    Args:
        executor: the settings that reach it.
        nodes: the command that is kept up on each host.
        computing: the hosts that run stages, of which the second will be cut off.
        nodes_env: what the nodes must know.
        env: what the workers must know too.
    """

    executor: dict[str, Any]
    nodes: dict[str, list[str]]
    computing: tuple[str, str]
    nodes_env: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


def _ray(cpus: int, *options: str) -> list[str]:
    start = [RAY, "start", "--block", f"--num-cpus={cpus}", "--object-store-memory=100000000"]
    return [*start, "--disable-usage-stats", *(options or ["--address=head:6379"])]


def _dask(host: str) -> list[str]:
    return [DASK, "worker", "tcp://head:8786", f"--host={host}", "--nworkers=2", "--nthreads=1", "--no-dashboard"]


CLUSTERS = {
    "ray": Cluster(
        executor={"target": "ray", "cluster_address": "head:6379"},
        nodes={
            "head": _ray(
                2, "--head", "--port=6379", "--include-dashboard=false", f"--system-config={json.dumps(RAY_SYSTEM)}"
            ),
            "left": _ray(2),
            # Who joins by address needs a node on the own host; these run no stages.
            **dict.fromkeys(WORKERS, _ray(0)),
        },
        computing=("head", "left"),
        env={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-that-all-hosts-of-the-cluster-have"},
    ),
    "dask": Cluster(
        executor={"target": "dask", "cluster_address": "tcp://head:8786"},
        nodes={
            "head": [DASK, "scheduler", "--host=head", "--port=8786", "--no-dashboard"],
            "left": _dask("left"),
            "right": _dask("right"),
        },
        computing=("left", "right"),
        # A scheduler bears a silent worker for 30 s; this one for 11, the least that it can be told.
        nodes_env={"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s", "PYTHONPATH": str(MODULES)},
    ),
}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[HostFleet]:
    """A queue and workers whose stages run on their own hosts."""
    with host_fleet(tmp_path) as fleet:
        fleet.start_workers({"target": "local", "mode": "threads", "cpus": 2}, concurrency=1)
        yield fleet
        fleet.report()


@pytest.fixture(scope="module", params=CLUSTERS)
def shared_grid(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[HostFleet, Cluster]]:
    """A queue, workers and a cluster, which all tests of it leave whole."""
    cluster = CLUSTERS[request.param]
    with host_fleet(tmp_path_factory.mktemp(request.param), *(cluster.nodes.keys() - set(WORKERS))) as fleet:
        for host, command in cluster.nodes.items():
            fleet.start(host, *KEEP_UP, *command, env=cluster.nodes_env | cluster.env)
        fleet.start_workers(cluster.executor, cluster.env)
        # The last node may have joined later than the workers.
        until(lambda: fleet.used() == set(cluster.computing), seconds=60)
        yield fleet, cluster


@pytest.fixture
def grid(shared_grid: tuple[HostFleet, Cluster]) -> Iterator[tuple[HostFleet, Cluster]]:
    """The same, whole again after a test that failed."""
    yield shared_grid
    for host in shared_grid[0].hosts.values():
        host.heal()
    shared_grid[0].report()


def test_a_worker_cut_off_loses_its_run_to_another_and_comes_back(small: HostFleet) -> None:
    """Its lease expires and the other finishes the run; what it does meanwhile counts for nothing; then it works on."""
    until(lambda: small.used() == set(WORKERS))
    gate = small.gate()
    (cut,) = gate.begun()

    small.hosts[cut].cut()
    silent = time.monotonic()
    (other,) = gate.begun(after=1)
    assert time.monotonic() - silent < 3 * LEASE
    gate.open()

    assert gate.run.result(timeout=30) == other != cut
    assert (gate.run.record.attempt, gate.run.record.worker) == (2, other)
    before = small.records(gate.run)
    small.hosts[cut].heal()
    small.until_said(cut, "attempt 1 lost")
    assert small.records(gate.run) == before
    until(lambda: cut in small.used())


def test_a_queue_cut_off_loses_nothing(small: HostFleet) -> None:
    """Both workers bear its silence; what is held meanwhile ends right, and new runs are heard of."""
    gate = small.gate()
    gate.begun()

    small.hosts["queue"].cut()
    for worker in WORKERS:
        small.until_said(worker, "the heartbeat failed")
    gate.open()
    small.hosts["queue"].heal()

    assert gate.run.result(timeout=30) in WORKERS
    until(lambda: small.used() == set(WORKERS))


def test_stages_run_on_all_hosts_and_their_lines_arrive_while_they_do(grid: tuple[HostFleet, Cluster]) -> None:
    """Each host of the cluster has some items of a map, and what they print is read with that host's name."""
    fleet, cluster = grid
    everywhere = set(cluster.computing)
    gate = fleet.gate(4)
    assert set(gate.begun(4)) == everywhere
    until(lambda: {line.host for line in gate.run.logs() if line.source == "stdout"} == everywhere)
    assert gate.run.state == "running"
    gate.open()
    assert set(gate.run.result(timeout=30)) == everywhere


@pytest.mark.parametrize("shared_grid", ["ray"], indirect=True)
def test_a_worker_on_a_host_without_a_ray_node_is_told(grid: tuple[HostFleet, Cluster]) -> None:
    """What to do, long before Ray itself gives up."""
    fleet, cluster = grid
    begun = time.monotonic()

    outside = fleet.start_worker("queue", cluster.executor, cluster.env, "--burst")

    assert outside.wait(timeout=60) == 1
    assert time.monotonic() - begun < 30
    fleet.until_said("queue", "cannot be joined: no node of it is on this machine. Start one here with `ray start")


@pytest.mark.alarm(180)
def test_a_node_cut_off_in_a_map_does_not_stop_the_run(grid: tuple[HostFleet, Cluster]) -> None:
    """The items that it had are run elsewhere, in the same attempt; when it is back it has its share again."""
    fleet, cluster = grid
    stays, cut = cluster.computing
    gate = fleet.gate(4)
    assert cut in gate.begun(4)

    fleet.hosts[cut].cut()
    gate.open()
    assert gate.run.result(timeout=60) == [stays] * 4
    assert gate.run.record.attempt == 1
    fleet.hosts[cut].heal()
    until(lambda: cut in fleet.used(), seconds=90)


@pytest.mark.alarm(240)
def test_a_head_cut_off_ends_the_attempt_and_the_run_is_tried_again(grid: tuple[HostFleet, Cluster]) -> None:
    """The workers name what is lost within 10 s; once the head is back, the run goes on as another attempt."""
    fleet, cluster = grid
    gate = fleet.gate()
    gate.begun()

    said = {worker: fleet.said(worker) for worker in WORKERS}
    fleet.hosts["head"].cut()
    silent = time.monotonic()
    for worker in WORKERS:
        fleet.until_said(worker, "go back to their queues", said[worker])
    assert time.monotonic() - silent < 12
    # By then Ray's head has given up all its nodes, which end when they hear of it.
    for worker in WORKERS:
        fleet.until_said(worker, "it is tried again", said[worker])
    assert gate.run.state == "queued"
    # The worker that noticed last may have tried it too.
    lost = gate.run.record.attempt
    fleet.hosts["head"].heal()

    assert gate.begun(after=lost)
    gate.open()
    assert gate.run.result(timeout=60) in cluster.computing
    ends = [line.message for line in gate.run.logs() if line.message.startswith("attempt")]
    assert [end for end in ends if "cluster" in end and "goes back to its queue" in end] == ends != []
    until(lambda: fleet.used() == set(cluster.computing), seconds=90)

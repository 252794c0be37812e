"""Real clusters that operators started: they die and return, or forget what they had; the runs are tried again."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from dask_cluster import start_scheduler, start_worker
from fleet import MODULES, Fleet, until
from ray_cluster import free_port, started

#: A stage that is committed, then one that waits for the test.
MARK_THEN_GATE = ({"name": "mark"}, {"name": "gate", "depends_on": ["mark"]})

#: Seconds from a cluster's death to the end of the attempts on it.
BOUND = 10.0


def log_of(run: Any) -> str:
    return "\n".join(str(line) for line in run.logs())


@dataclass(frozen=True)
class RealCluster:
    """A cluster that operators started.

    Args:
        executor: the settings that reach it.
        name: what messages call it.
        kill: ends its head, as `kill -9` does.
        start: starts a head at the same address, which knows nothing of before.
    """

    executor: dict[str, Any]
    name: str
    kill: Callable[[], object]
    start: Callable[[], object]


@contextmanager
def ray_cluster(folder: Path) -> Iterator[RealCluster]:
    """Runs a Ray head that asks for a token, and a node that outlives it."""
    with started(folder, host="127.0.0.2") as cluster:
        (head,) = (node.pid for node in cluster.nodes)
        cluster.add_node()
        yield RealCluster(
            {"target": "ray", **cluster.settings},
            f"the Ray cluster at {cluster.address} is lost",
            kill=lambda: cluster.end(head),
            start=lambda: cluster.start_head(cpus=2),
        )


@contextmanager
def dask_cluster(folder: Path) -> Iterator[RealCluster]:
    """Runs a Dask scheduler and two workers, which end with it."""

    port = str(free_port("127.0.0.1"))

    def start(on: ExitStack) -> str:
        address = start_scheduler(folder, on, "--port", port)
        for name in ("one", "two"):
            start_worker(folder, on, address, name)
        return address

    with ExitStack() as first, ExitStack() as second:
        address = start(first)
        yield RealCluster(
            {"target": "dask", "cluster_address": address, "py_modules": [str(MODULES / "fleet_stages.py")]},
            f"the Dask cluster at {address} closed the connection",
            kill=first.close,
            start=lambda: start(second),
        )


@pytest.mark.alarm(240)
@pytest.mark.parametrize("real_cluster", [ray_cluster, dask_cluster])
def test_a_head_that_is_back_at_its_address_is_joined_again(
    fleet: Fleet, tmp_path: Path, real_cluster: Callable[[Path], Any]
) -> None:
    """What it had is queued in time, with the reason; the worker knocks until it is there, and finishes all runs."""
    with real_cluster(tmp_path) as cluster:
        fleet.start("w", executor=cluster.executor, concurrency=2)
        running = [fleet.submit(*MARK_THEN_GATE) for _ in range(2)]
        waiting = fleet.submit(*MARK_THEN_GATE)
        until(lambda: [run.state for run in running] == ["running"] * 2)
        fleet.begun()

        died = time.monotonic()
        cluster.kill()
        until(lambda: [run.state for run in running] == ["queued"] * 2, seconds=BOUND)
        assert time.monotonic() - died < BOUND
        for run in running:
            assert f"flowtilla | ERROR: attempt 1 ended: {cluster.name}" in log_of(run)
        until(lambda: "could not be started, it is tried again" in fleet.said("w"))
        assert waiting.state == "queued"

        cluster.start()
        until(lambda: (fleet.folder / "begun-2").exists(), seconds=90)
        fleet.open_gate()
        assert [run.result(timeout=30) for run in (*running, waiting)] == [str(fleet.folder)] * 3
        assert [run.record.attempt for run in (*running, waiting)] == [2, 2, 1]
        assert fleet.workers["w"].poll() is None


def test_a_cluster_that_drops_its_tasks_costs_an_attempt_and_no_run(fleet: Fleet, tmp_path: Path) -> None:
    """Somebody restarts it, and it forgets all that it had: the next attempt goes on with what was committed."""
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        start_worker(tmp_path, stack, address, "only")
        modules = [str(MODULES / "fleet_stages.py")]
        fleet.start("w", executor={"target": "dask", "cluster_address": address, "py_modules": modules})
        run = fleet.submit(*MARK_THEN_GATE)
        fleet.begun()

        with Client(address, set_as_default=False) as other:
            other.restart()

        until(lambda: (fleet.folder / "begun-2").exists(), seconds=60)
        fleet.open_gate()
        assert run.result(timeout=30) == str(fleet.folder)
        assert run.record.attempt == 2
        assert len(fleet.marks()) == 1
        assert "or somebody restarted the cluster" in log_of(run)

"""A Ray cluster that dies is a fact, told within ten seconds; the worker's process lives on."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

import ray_functions as r
from ray._common.utils import get_system_memory
from ray._private.utils import get_used_memory
from ray_processes import drivers, members

import executor_functions as f
from executor_bench import Bench, call
from flowtilla.errors import ClusterLost
from flowtilla.settings import ExecutorSettings
from flowtilla_executors import Parent
from flowtilla_executors.registry import create
from ray_cluster import started

#: Seconds within which a death is told.
BOUND = 10.0


def bench(**settings: Any) -> Bench:
    """Returns a Ray executor, started."""
    made = Bench(create(ExecutorSettings.model_validate({"target": "ray", **settings})))
    made.start()
    return made


@pytest.fixture(scope="module")
def others() -> set[int]:
    """The driver processes of executors that other tests share."""
    return set(drivers())


@pytest.fixture(scope="module")
def local(others: set[int]) -> Iterator[Bench]:
    """An executor with a cluster of its own, which every test here kills and starts again."""
    made = bench(cpus=1, object_store_memory="100MB")
    yield made
    made.close()


def lose(executor: Bench, pid: int, waiting: list[Any], blow: signal.Signals = signal.SIGKILL) -> ClusterLost:
    """Kills a process, and returns what the executor says of it in time; whoever waits for a call hears it too."""
    begun = time.monotonic()
    os.kill(pid, blow)
    error = executor.run(executor.executor.lost())
    assert time.monotonic() - begun < (BOUND if blow is signal.SIGKILL else 2 * BOUND)
    for handle in waiting:
        with pytest.raises(ClusterLost, match=re.escape(str(error))):
            executor.outcome(handle)
    assert executor.run(asyncio.sleep(0, "alive")) == "alive"
    return error


def again(executor: Bench) -> None:
    """Closes an executor that lost its cluster, in time, and starts it again."""
    begun = time.monotonic()
    executor.close()
    assert time.monotonic() - begun < 5
    executor.start()
    assert executor.value(call(f.give, 1)) == 1


@pytest.mark.parametrize(
    ("victim", "said"),
    [
        ("raylet/raylet", "the local Ray cluster is lost: the raylet of this node, at 127.0.0.1:.* is dead"),
        ("gcs/gcs_server", r"the local Ray cluster is lost: its control store \(GCS\) at 127.0.0.1:.* does not answer"),
    ],
)
def test_a_local_cluster_that_dies_is_lost(
    local: Bench, others: set[int], victim: str, said: str, tmp_path: Path
) -> None:
    """The error names what died; calls that wait, and those that come after, hear it; the executor starts again."""
    began = tmp_path / "began"
    running = local.submit(call(f.start_and_wait, str(began)))
    local.until(began.exists, "the call did not begin")
    waiting = local.submit(call(f.give, 1))
    [session] = set(drivers()) - others
    [pid] = members(session, victim)

    error = lose(local, pid, [running, waiting])

    assert re.match(said, str(error))
    with pytest.raises(ClusterLost):
        local.result(call(f.give, 2))
    again(local)


def test_a_driver_process_that_dies_is_a_lost_cluster(local: Bench, others: set[int], tmp_path: Path) -> None:
    """Nothing of its cluster stays behind."""
    finished = local.finished(call(f.give, "x" * 100_000))
    [pid] = set(drivers()) - others

    error = lose(local, pid, [local.submit(call(time.sleep, 100))])

    assert "its driver process ended" in str(error)
    with pytest.raises(ClusterLost):
        local.fetch(finished)
    again(local)
    assert members(pid) == []


@pytest.mark.parametrize(
    ("victim", "said"),
    [
        ("spawn_main", "its driver process has said nothing for 8 seconds"),
        ("gcs/gcs_server", r"its control store \(GCS\) at 127.0.0.1:.* does not answer: DEADLINE_EXCEEDED"),
    ],
)
def test_what_hangs_is_a_lost_cluster(local: Bench, others: set[int], victim: str, said: str) -> None:
    """As what died, and all of it is ended."""
    [session] = set(drivers()) - others
    pid = session if victim == "spawn_main" else members(session, victim)[0]

    error = lose(local, pid, [local.submit(call(time.sleep, 100))], signal.SIGSTOP)

    assert re.search(said, str(error))
    local.close()
    assert members(session) == []
    local.start()


@pytest.mark.parametrize("victim", ["raylet/raylet", "gcs/gcs_server"])
def test_a_joined_cluster_that_dies_is_lost(victim: str, tmp_path: Path) -> None:
    """The executor can be closed, and says on starting that there is no cluster."""
    with started(tmp_path, cpus=1) as cluster:
        joined = bench(**cluster.settings)
        running = joined.submit(call(time.sleep, 100))
        [pid] = members(cluster.nodes[0].pid, victim)

        error = lose(joined, pid, [running])
        begun = time.monotonic()
        joined.close()

    assert f"the Ray cluster at {cluster.address} is lost" in str(error)
    assert time.monotonic() - begun < 5 + 5


def test_calls_move_when_one_node_of_several_dies(tmp_path: Path) -> None:
    """A node's death is not the cluster's: what ran there runs elsewhere, and what it kept is made again."""
    with started(tmp_path, cpus=1, resources={"wheels": 1}, host="127.0.0.2") as cluster:
        first = cluster.add_node(resources={"wings": 1})
        joined = bench(**cluster.settings)
        began, released = tmp_path / "began", tmp_path / "released"
        kept = joined.finished(call(f.give, list(range(100_000)), resources={"wings": 1}))
        running = joined.submit(call(f.meet, str(began), str(released), resources={"wings": 1}))
        joined.until(began.exists, "the call did not begin")

        cluster.end(first)
        began.unlink()
        cluster.add_node(resources={"wings": 1})
        joined.until(began.exists, "the call did not begin again")
        released.touch()

        assert joined.outcome(running).value is True
        assert joined.fetch(kept) == list(range(100_000))
        joined.close()


def test_a_value_that_cannot_be_made_again_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the run is tried again from what it stored."""
    # Ray then keeps no task to run it again.
    monkeypatch.setenv("RAY_lineage_pinning_enabled", "0")
    with started(tmp_path, cpus=1, resources={"wheels": 1}, host="127.0.0.2") as cluster:
        first = cluster.add_node(resources={"wings": 1})
        joined = bench(**cluster.settings)
        kept = joined.finished(call(f.give, list(range(100_000)), resources={"wings": 1}))
        cluster.end(first)

        failure = joined.result(call(len, Parent(0)), kept).failure

        assert failure.error == "flowtilla.errors.ValueLost"
        assert "stage 'stage' of run run1: a value that it takes is gone, and could not be" in failure.message
        joined.close()


def test_a_call_that_only_an_absent_node_could_run_waits_for_it(tmp_path: Path) -> None:
    """It fails neither at once nor later, and the run's log says what it waits for."""
    with started(tmp_path, cpus=1, resources={"wheels": 1}, host="127.0.0.2") as cluster:
        first = cluster.add_node(resources={"wings": 1})
        joined = bench(**cluster.settings)
        cluster.end(first)
        joined.until(lambda: not joined.executor.info().resources.get("wings"), "the node was not missed")

        waiting = joined.submit(call(f.give, 1, resources={"wings": 1}))
        joined.until(lambda: joined.lines, "the log says nothing")
        cluster.add_node(resources={"wings": 1})

        assert joined.outcome(waiting).value == 1
        assert [line.message for line in joined.lines] == [
            "no node that is up could give cpus=1, wings=1: the stage waits until one that could is back"
        ]
        joined.close()


def test_a_stage_that_eats_its_nodes_memory_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray kills it before the machine suffers; it is tried again as often as any that is lost, and others go on."""
    # Room for Ray itself, and for what other tests beside this one take meanwhile.
    threshold = min(0.95, (get_used_memory() + 3 * 2**30) / get_system_memory())
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{threshold:.4f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "50")
    cramped = bench(cpus=1, object_store_memory="100MB")

    failure = cramped.result(call(r.eat, 1000)).failure

    assert failure.lost
    assert "its node ran out of memory, and Ray killed it" in failure.message
    assert cramped.value(call(f.give, 1)) == 1
    cramped.close()

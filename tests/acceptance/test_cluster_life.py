"""Clusters come late, go away, die and return; the worker lives through it, and the runs are tried again."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

import flowtilla
from fleet import Fleet, until
from flowtilla.errors import RunQuarantined
from flowtilla.workers import WorkerRecord

#: A stage that is committed, then one that waits for the test.
MARK_THEN_GATE = ({"name": "mark"}, {"name": "gate", "depends_on": ["mark"]})

#: Seconds from a cluster's death to the end of the attempts on it.
BOUND = 10.0

#: Seconds that the engine gives an executor to stop a call: on a dead cluster it does not even ask.
STOPPING = 5.0


class Cluster:
    """The cluster of a worker's `FleetExecutor`, and what becomes of it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._file = folder / "cluster"
        self.executor = {"target": "fleet_executor.FleetExecutor", "folder": str(folder)}

    def is_(self, fate: str, why: str = "") -> None:
        """Decides how the cluster is from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{fate} {why}")
        new.replace(self._file)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """A cluster that is up."""
    return Cluster(tmp_path)


def workers(fleet: Fleet, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    """Returns what `flowtilla workers --json` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "flowtilla.cli", "workers", "--json", *arguments],
        env=os.environ | {"FLOWTILLA__REDIS__URL": fleet.url},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return list(json.loads(done.stdout))


def table(fleet: Fleet) -> list[str]:
    """Returns the lines that `flowtilla workers` prints."""
    command = [sys.executable, "-m", "flowtilla.cli", "workers"]
    env = os.environ | {"FLOWTILLA__REDIS__URL": fleet.url}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()


async def asynchronously(fleet: Fleet) -> list[WorkerRecord]:
    async with flowtilla.AsyncClient(fleet.url) as client:
        return await client.workers()


def log_of(run: Any) -> str:
    return "\n".join(str(line) for line in run.logs())


def test_the_worker_says_when_its_executor_is_ready(fleet: Fleet, cluster: Cluster) -> None:
    """While the cluster starts the worker is there, not ready, and takes no run; then it is ready and does."""
    cluster.is_("starting")
    fleet.start("w", executor=cluster.executor, queues="[high, default]", concurrency=3)
    run = fleet.submit({"name": "gate"})

    (before,) = workers(fleet)
    assert (before["name"], before["ready"], before["executor"]) == ("w", False, "fleet")
    assert (before["queues"], before["runs"], before["cluster"]) == (["high", "default"], 0, "it is starting")
    assert before["pid"] == fleet.workers["w"].pid
    assert [one["ready"] for one in workers(fleet, "w", code=1)] == [False]
    assert run.state == "queued"

    cluster.is_("up")
    fleet.begun()
    after = until(lambda: [one for one in workers(fleet, "w", "--here") if one["runs"]])[0]
    assert (after["ready"], after["state"], after["runs"]) == (True, "busy", 1)
    assert after["cluster"] == "the cluster of the test, with fleet_stages"
    head, line = table(fleet)
    assert head.split() == ["WORKER", "HOST", "QUEUES", "STATE", "RUNS", "EXECUTOR", "READY", "SINCE", "CLUSTER"]
    assert line.split()[2:7] == ["high,default", "busy", "1", "fleet", "yes"]
    assert before["ready_since"] < after["ready_since"]
    fleet.open_gate()
    assert run.wait(timeout=30) == "finished"


def test_who_is_not_there_is_not_ready(fleet: Fleet) -> None:
    """A probe for a worker that does not exist, was killed, or has ended, fails; a list of nobody does not."""
    assert workers(fleet) == []
    assert workers(fleet, "w", code=1) == workers(fleet, "--here", code=1) == []
    fleet.start("w")
    fleet.start("killed")
    until(lambda: [one["ready"] for one in workers(fleet)] == [True, True])
    assert [one.name for one in asyncio.run(asynchronously(fleet))] == ["killed", "w"]

    fleet.kill("killed", signal.SIGKILL)
    until(lambda: [one["name"] for one in workers(fleet)] == ["w"])
    assert workers(fleet, "killed", code=1) == []
    fleet.kill("w", signal.SIGTERM)
    assert fleet.ended("w") == 0
    assert workers(fleet, "w", code=1) == []


def test_readiness_outlives_a_lost_record(fleet: Fleet, redis: Redis) -> None:
    """When RQ's record of the worker is gone it is written again, with what we tell in it."""
    fleet.start("w")
    until(lambda: [one.ready for one in fleet.client.workers()] == [True])

    redis.delete("rq:worker:w")

    until(lambda: [(one.executor, one.ready) for one in fleet.client.workers()] == [("local", True)])


@pytest.mark.parametrize("fate", ["dead", "silent", "torn"])
def test_a_run_outlives_its_cluster(fleet: Fleet, cluster: Cluster, redis: Redis, fate: str) -> None:
    """Whoever notices: the attempt ends in time with the reason, and the next one does only what is left."""
    fleet.start("w", executor=cluster.executor)
    run = fleet.submit(*MARK_THEN_GATE)
    fleet.begun()

    died = time.monotonic()
    cluster.is_(fate, "its raylet was killed")
    until(lambda: run.state == "queued", seconds=BOUND)
    took = time.monotonic() - died
    said = "the cluster of the test died: its raylet was killed"
    assert took < STOPPING
    assert f"flowtilla | ERROR: attempt 1 ended: {said}; the run goes back to its queue" in log_of(run)
    assert f"ERROR   {said}; the runs on it (" in fleet.said("w")

    cluster.is_("up")
    fleet.begun(attempt=2)
    fleet.open_gate()
    assert run.result(timeout=30) == str(fleet.folder)
    assert run.record.attempt == 2
    assert len(fleet.marks()) == 1
    assert (redis.hget(f"rq:job:{run.id}", "cluster_losses"), redis.hget(f"rq:job:{run.id}", "losses")) == (b"1", None)
    # The whole log, from storage by now, has both attempts.
    assert [f"attempt {number} waits at the gate" in log_of(run) for number in (1, 2)] == [True, True]
    assert fleet.workers["w"].poll() is None


def test_many_runs_and_maps_outlive_their_cluster(fleet: Fleet, cluster: Cluster) -> None:
    """Every run in hand is tried again, mapped stages too, and none spends a retry."""
    fleet.start("w", executor=cluster.executor)
    stages = (
        {"name": "echo"},
        {"name": "gate_of_item", "type": "parameterized", "depends_on": ["echo"], "retries": 1},
    )
    given = {"x": [str(fleet.folder)] * 3}
    runs = [fleet.submit(*stages, input=given) for _ in range(5)]
    until(lambda: [run.state for run in runs] == ["running"] * 5)
    fleet.begun()

    cluster.is_("silent", "all nodes are gone")
    until(lambda: [run.state for run in runs] == ["queued"] * 5, seconds=BOUND)
    cluster.is_("up")
    fleet.open_gate()

    assert [run.result(timeout=30) for run in runs] == [[str(fleet.folder)] * 3] * 5
    assert {(run.record.attempt, run.stages["gate_of_item"].retries) for run in runs} == {(2, 0)}


def test_a_run_that_loses_five_clusters_is_set_aside(fleet: Fleet, cluster: Cluster, redis: Redis) -> None:
    """It may be what kills them; four in a row are forgiven, `flowtilla retry` forgives them all."""
    fleet.start("w", executor=cluster.executor)
    run = fleet.submit({"name": "gate"})
    # Four losses of earlier hours: the pauses between restarts would make a long test of them.
    redis.hset(f"rq:job:{run.id}", "cluster_strikes", 4)
    fleet.begun()

    cluster.is_("dead", "out of memory")
    until(lambda: run.state == "queued", seconds=BOUND)
    cluster.is_("up")
    with pytest.raises(RunQuarantined, match="lost its cluster 5 times in a row while gate ran, so it was set aside"):
        run.result(timeout=30)

    fleet.open_gate()
    run.retry()
    assert run.result(timeout=30) == str(fleet.folder)


def test_a_cluster_may_come_after_its_worker(fleet: Fleet, cluster: Cluster) -> None:
    """One that cannot be reached at first is waited for; the reason is logged once, and told by `flowtilla workers`."""
    cluster.is_("away", "nobody listens")
    fleet.start("w", executor=cluster.executor)
    why = "the cluster of the test does not answer: nobody listens"
    until(lambda: [(one.ready, one.cluster) for one in fleet.client.workers()] == [(False, why)])
    run = fleet.submit({"name": "nothing"})
    cluster.is_("away", "it boots")
    until(lambda: "it boots" in fleet.said("w"))

    cluster.is_("up")
    assert run.wait(timeout=30) == "finished"
    assert run.record.attempt == 1
    assert fleet.said("w").count(why) == 1


def test_a_burst_does_not_wait_for_a_cluster(fleet: Fleet, cluster: Cluster) -> None:
    """It ends with the reason, and the run stays queued."""
    cluster.is_("away", "nobody listens")
    run = fleet.submit({"name": "nothing"})
    fleet.start("w", "--burst", executor=cluster.executor, wait=False)

    assert fleet.ended("w") == 1
    assert fleet.said("w").endswith("error: the cluster of the test does not answer: nobody listens\n")
    assert run.state == "queued"


def test_a_cluster_of_another_kind_is_refused(fleet: Fleet, cluster: Cluster) -> None:
    """At the start, a mismatch ends the worker with the sentence, exit code 1 and no traceback."""
    cluster.is_("strange", "python 3.10 there and 3.11 here")
    fleet.start("w", executor=cluster.executor, wait=False)

    assert fleet.ended("w") == 1
    said = fleet.said("w")
    assert said.endswith("error: the cluster of the test is not like this worker: python 3.10 there and 3.11 here\n")
    assert "Traceback" not in said
    assert workers(fleet) == []


def test_after_a_loss_even_a_mismatch_is_waited_out(fleet: Fleet, cluster: Cluster) -> None:
    """The cluster may be in the middle of an upgrade: the worker lives, and goes on when it fits again."""
    fleet.start("w", executor=cluster.executor)
    run = fleet.submit({"name": "gate"})
    fleet.begun()
    cluster.is_("dead", "it is upgraded")
    until(lambda: run.state == "queued", seconds=BOUND)
    cluster.is_("strange", "half of it is new")
    until(lambda: "could not be started, it is tried again: the cluster of the test is not like" in fleet.said("w"))

    cluster.is_("up")
    fleet.open_gate()
    assert run.result(timeout=60) == str(fleet.folder)
    assert run.record.attempt == 2


@pytest.mark.parametrize("fate", ["starting", "stuck", "away"])
def test_a_worker_can_be_stopped_before_its_cluster_is_there(fleet: Fleet, cluster: Cluster, fate: str) -> None:
    """SIGTERM while it starts, even in a thread that heeds nothing, or while it is waited for: a clean end, soon."""
    cluster.is_(fate)
    fleet.start("w", executor=cluster.executor)
    run = fleet.submit({"name": "nothing"})
    until(lambda: fleet.client.workers())

    fleet.kill("w", signal.SIGTERM)

    assert fleet.ended("w", seconds=15) == 0
    assert (run.state, fleet.client.workers()) == ("queued", [])


def test_a_worker_can_be_stopped_while_its_cluster_is_lost(fleet: Fleet, cluster: Cluster) -> None:
    """Its runs are queued already; another worker does them."""
    fleet.start("w", executor=cluster.executor)
    run = fleet.submit(*MARK_THEN_GATE)
    fleet.begun()
    cluster.is_("dead", "gone for good")
    until(lambda: run.state == "queued", seconds=BOUND)
    cluster.is_("away", "gone for good")
    why = "the cluster of the test does not answer: gone for good"
    until(lambda: [(one.ready, one.cluster) for one in fleet.client.workers()] == [(False, why)])

    fleet.kill("w", signal.SIGTERM)

    assert fleet.ended("w", seconds=15) == 0
    fleet.open_gate()
    fleet.start("other")
    assert run.result(timeout=30) == str(fleet.folder)
    assert len(fleet.marks()) == 1


def test_a_cluster_may_die_while_its_worker_drains(fleet: Fleet, cluster: Cluster, redis: Redis) -> None:
    """The worker need not wait for its grace, nor for the cluster: what it had is queued, and counted."""
    fleet.start("w", executor=cluster.executor, grace="60s")
    run = fleet.submit({"name": "gate"})
    fleet.begun()
    fleet.kill("w", signal.SIGTERM)
    until(lambda: "asked to stop" in fleet.said("w"))

    cluster.is_("silent", "scaled down")

    assert fleet.ended("w", seconds=15) == 0
    assert run.state == "queued"
    assert redis.hget(f"rq:job:{run.id}", "cluster_losses") == b"1"


def test_another_worker_takes_the_runs_of_a_lost_cluster(fleet: Fleet, cluster: Cluster, tmp_path: Path) -> None:
    """Of two workers one loses its cluster: the other one does its runs, in no more time than a loss may take."""
    lasting = Cluster(tmp_path / "lasting")
    fleet.start("losing", executor=cluster.executor)
    run = fleet.submit(*MARK_THEN_GATE)
    fleet.begun()
    fleet.start("lasting", executor=lasting.executor)
    until(lambda: all(one.ready for one in fleet.client.workers()))

    cluster.is_("silent", "cut off")

    fleet.begun(attempt=2)
    fleet.open_gate()
    assert run.result(timeout=30) == str(fleet.folder)
    assert (run.record.attempt, run.record.worker) == (2, "lasting")
    assert {one.name: one.ready for one in fleet.client.workers()} == {"losing": False, "lasting": True}
    assert len(fleet.marks()) == 1


def lose(fleet: Fleet, cluster: Cluster, left: int) -> None:
    """Lets a cluster die and stay away; so many workers are ready then."""
    cluster.is_("dead", "all of it")
    until(lambda: sum(one.ready for one in fleet.client.workers()) == left, seconds=BOUND)
    cluster.is_("away", "all of it")


def test_what_several_workers_find_at_once_is_one_loss(fleet: Fleet, cluster: Cluster, redis: Redis) -> None:
    """A run goes from one worker to the next while each finds their cluster gone: it is blamed once."""
    other = Cluster(fleet.folder / "other")
    fleet.start("one", executor=cluster.executor)
    run = fleet.submit({"name": "gate"})
    fleet.begun()
    fleet.start("two", executor=other.executor)
    until(lambda: all(one.ready for one in fleet.client.workers()))

    lose(fleet, cluster, left=1)
    fleet.begun(attempt=2)
    lose(fleet, other, left=0)
    until(lambda: run.state == "queued", seconds=BOUND)
    cluster.is_("up")
    fleet.begun(attempt=3)
    fleet.open_gate()

    assert run.result(timeout=30) == str(fleet.folder)
    assert redis.hget(f"rq:job:{run.id}", "cluster_losses") == b"1"

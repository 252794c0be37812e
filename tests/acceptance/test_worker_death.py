"""Workers die, freeze and are stopped; no run is lost, none is done twice, and nothing stale is written."""

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis
from rq.utils import utcparse

from fleet import LEASE, Fleet, until
from flowtilla.errors import RunQuarantined
from flowtilla.storage import ArtifactStore
from house import housekeep

#: A stage that is committed, then one that waits for the test.
MARK_THEN_GATE = ({"name": "mark"}, {"name": "gate", "depends_on": ["mark"]})


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_another_worker_takes_over_when_one_is_killed(fleet: Fleet, mode: str) -> None:
    """kill -9 in the middle of a stage: the run goes on elsewhere and its committed stage does not run again."""
    fleet.start("first", mode=mode)
    run = fleet.submit(*MARK_THEN_GATE)
    fleet.begun()

    fleet.start("second", mode=mode)
    fleet.kill("first", signal.SIGKILL)
    fleet.begun(attempt=2)
    fleet.open_gate()

    assert run.result(timeout=30) == str(fleet.folder)
    assert len(fleet.marks()) == 1
    assert (run.record.attempt, run.record.worker) == (2, "second")


#: Lease and heartbeat as they are by default, and how long a worker is frozen then; short ones, and not much longer.
BY_DEFAULT, SHORT = ("10s", "3s", 60.0), (f"{LEASE}s", "400ms", 3 * LEASE)


@pytest.mark.alarm(180)
@pytest.mark.parametrize(
    ("executor", "times"),
    [
        ({"target": "local", "mode": "threads"}, SHORT),
        ({"target": "local", "mode": "processes"}, BY_DEFAULT),
        ({"target": "ray", "cpus": 2}, SHORT),
        ({"target": "dask", "cpus": 2}, SHORT),
    ],
    ids=["threads", "processes", "ray", "dask"],
)
def test_a_frozen_worker_that_thaws_writes_nothing(
    fleet: Fleet, redis: Redis, executor: dict[str, Any], times: tuple[str, str, float]
) -> None:
    """SIGSTOP for longer than the lease, of the worker and all that it started: the other attempt's outcome stands.

    The old attempt finds its gate open, prints, stores, returns, and gives up: no key and no file changes, but for
    versions of artifacts that no reader finds, and they go when the run does.
    """
    lease, heartbeat, frozen = times
    fleet.start("first", executor=executor, lease=lease, heartbeat=heartbeat)
    run = fleet.submit({"name": "gate", "target": "gate_that_stores"}, {"name": "echo", "depends_on": ["gate"]})
    until(lambda: list(run.logs()), seconds=60)
    family = [one.pid for one in psutil.Process(fleet.workers["first"].pid).children(recursive=True)]
    for pid in (fleet.workers["first"].pid, *family):
        os.kill(pid, signal.SIGSTOP)
    thaw = time.monotonic() + frozen
    fleet.start("second", lease=lease, heartbeat=heartbeat)
    fleet.begun(attempt=2)
    fleet.open_gate()
    assert run.wait(timeout=30) == "finished"

    def keys() -> dict[bytes, bytes | None]:
        return {key: redis.dump(key) for key in redis.keys(f"*{run.id}*")}

    def files(seen: bool = True) -> dict[Path, bytes]:
        found = {path: path.read_bytes() for path in (fleet.folder / "storage").rglob("*") if path.is_file()}
        versions = {path for path in found if "artifacts" in path.parts and path.parent.name != "from"}
        hidden = {path for path in versions if path.parent.with_suffix(".json") not in found}
        hidden |= {path for path in found if "staged" in path.parts}
        return {path: found[path] for path in (found.keys() - hidden if seen else hidden)}

    until(lambda: time.monotonic() > thaw, seconds=frozen + 1)
    before = keys(), files()
    assert any("artifacts" in path.parts for path in before[1]) and any("results" in path.parts for path in before[1])

    for pid in (*family, fleet.workers["first"].pid):
        os.kill(pid, signal.SIGCONT)
    until(lambda: "lost" in fleet.said("first"))
    fleet.kill("first", signal.SIGTERM)
    fleet.ended("first")

    assert (keys(), files()) == before
    assert run.record.attempt == 2
    assert run.artifacts["from"].read() == {"attempt": 2}
    assert {line.attempt for line in run.logs()} == {1, 2}

    assert files(seen=False)
    redis.delete(f"rq:job:{run.id}")
    redis.zadd("flowtilla:ended", {f"default/{run.id}": 0})
    housekeep(fleet.settings, "sweep")
    assert not files(seen=False)
    assert ArtifactStore(fleet.settings.storage).get("default", "from").read() == {"attempt": 2}


def test_sigterm_lets_runs_finish(fleet: Fleet) -> None:
    """The first SIGTERM stops claiming; what runs ends; what waits stays queued; the exit code is 0."""
    fleet.start("first")
    run = fleet.submit({"name": "gate"})
    fleet.begun()

    fleet.kill("first", signal.SIGTERM)
    until(lambda: "asked to stop" in fleet.said("first"))
    later = fleet.submit({"name": "mark"})
    fleet.open_gate()

    assert run.wait(timeout=30) == "finished"
    assert fleet.ended("first") == 0
    assert (later.state, fleet.marks()) == ("queued", [])
    assert run.record.attempt == 1


def test_what_does_not_finish_in_the_grace_is_handed_back_to_the_front(fleet: Fleet, redis: Redis) -> None:
    """After the grace the run is first in its queue, keeps its committed stages, and has lost no try."""
    fleet.start("first", grace="200ms", concurrency=1)
    run = fleet.submit(*MARK_THEN_GATE)
    fleet.begun()
    later = fleet.submit({"name": "nothing"})

    fleet.kill("first", signal.SIGTERM)

    assert fleet.ended("first") == 0
    assert redis.lrange("rq:queue:default", 0, -1) == [run.id.encode(), later.id.encode()]
    assert run.state == "queued"
    fleet.open_gate()
    fleet.start("second")
    assert run.result(timeout=30) == str(fleet.folder)
    assert len(fleet.marks()) == 1
    assert redis.hget(f"rq:job:{run.id}", "losses") is None


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_a_second_sigterm_hands_back_at_once(fleet: Fleet, mode: str) -> None:
    """Who asks twice does not wait for the grace."""
    fleet.start("first", grace="60s", mode=mode)
    run = fleet.submit({"name": "gate"})
    fleet.begun()

    fleet.kill("first", signal.SIGTERM)
    until(lambda: "asked to stop: finishing" in fleet.said("first"))
    fleet.kill("first", signal.SIGTERM)

    assert fleet.ended("first", seconds=15) == 0
    assert run.state == "queued"


def test_a_run_that_kills_its_worker_is_set_aside(fleet: Fleet) -> None:
    """After three workers the run is quarantined with the evidence, and other runs go on."""
    run = fleet.submit({"name": "dies"})
    for number in range(3):
        fleet.start(f"victim-{number}", wait=False)
        assert fleet.ended(f"victim-{number}") == 9

    fleet.start("survivor")
    with pytest.raises(RunQuarantined, match="took its worker down 3 times in a row while dies ran"):
        run.result(timeout=30)
    assert run.state == "quarantined"
    assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1


def test_two_workers_share_the_queue_and_each_run_is_done_once(fleet: Fleet) -> None:
    """A hundred runs on two workers: each ends well, each ran once, both workers had some."""
    fleet.start("first", concurrency=2)
    fleet.start("second", concurrency=2)
    workflow = fleet.workflow({"name": "mark"})

    runs = fleet.client.submit_many([{"workflow": workflow, "input": {"folder": str(fleet.folder)}}] * 100)

    assert [run.wait(timeout=60) for run in runs] == ["finished"] * 100
    assert sorted(line.split()[1] for line in fleet.marks()) == sorted(run.id for run in runs)
    assert {run.record.worker for run in runs} == {"first", "second"}


def test_two_live_workers_cannot_have_one_name(fleet: Fleet, redis: Redis) -> None:
    """The second is refused with a sentence; a dead worker's name is free again after its lease."""
    fleet.start("twin")
    first = fleet.workers["twin"]
    fleet.start("twin", wait=False)
    assert fleet.ended("twin") != 0
    assert "a worker named 'twin' beat" in fleet.said("twin")

    first.kill()
    first.wait()
    beat = utcparse(redis.hget("rq:worker:twin", "last_heartbeat").decode())
    until(lambda: (datetime.now(UTC) - beat).total_seconds() > LEASE)
    fleet.start("twin", wait=False)
    until(lambda: fleet.said("twin").count("listens on") == 2)

"""Workers that are told to stop: they end within the grace, whatever happens, and lose nothing."""

import random
import signal
import time

import pytest
from redis import Redis

from drain_trials import Trials
from fleet import Fleet, until

#: Of these runs have two seconds; the rest is for what follows.
GRACE, FOR_RUNS = 5.0, 2.0


def stop(fleet: Fleet, name: str, code: int = 0) -> float:
    """Tells a worker to stop, and returns how many seconds it took."""
    begun = time.monotonic()
    fleet.kill(name, signal.SIGTERM)
    assert fleet.ended(name, seconds=60) == code
    return time.monotonic() - begun


def counted(redis: Redis, run_id: str) -> list[str]:
    """Returns what is held against a run."""
    fields = redis.hgetall(f"rq:job:{run_id}")
    return [name.decode() for name in fields if name in (b"losses", b"strikes", b"crashes", b"cluster_losses")]


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_a_stage_that_does_not_stop_keeps_no_worker_beyond_its_grace(fleet: Fleet, redis: Redis, mode: str) -> None:
    """The process ends in under the grace, and the run is queued, with nothing held against it."""
    fleet.start("w", mode=mode, grace=GRACE)
    run = fleet.submit({"name": "mark"}, {"name": "stubborn", "depends_on": ["mark"]})
    fleet.begun()

    took = stop(fleet, "w")

    assert FOR_RUNS - 0.1 < took < GRACE
    assert (run.state, counted(redis, run.id)) == ("queued", [])
    fleet.open_gate()
    fleet.start("next", mode=mode)
    assert run.result(timeout=30) == str(fleet.folder)
    assert (len(fleet.marks()), run.record.attempt) == (1, 2)


def test_a_stage_that_seizes_the_process_keeps_no_worker_beyond_its_grace(fleet: Fleet, redis: Redis) -> None:
    """Even where no line of Python runs any more the process ends in under the grace; its run is taken over."""
    fleet.start("w", grace=GRACE)
    run = fleet.submit({"name": "seizes"})
    fleet.begun()
    begun = time.monotonic()
    fleet.kill("w", signal.SIGTERM)
    until(lambda: "asked to stop" in fleet.said("w"))
    fleet.open_gate()

    assert fleet.ended("w", seconds=60) == 1
    assert time.monotonic() - begun < GRACE
    assert "in seizes" in fleet.said("w")
    fleet.start("next", mode="processes")
    fleet.begun(attempt=2)
    fleet.client.get(run.id).cancel()
    assert run.wait(timeout=30) == "cancelled"


def test_a_supervisor_ends_what_does_not_even_hear_it(fleet: Fleet) -> None:
    """A worker that cannot take SIGTERM any more keeps nobody either: its supervisor ends in under the grace too."""
    fleet.start("fleet", "-n", "2", grace=GRACE)
    run = fleet.submit({"name": "seizes"})
    fleet.begun()
    fleet.open_gate()
    until(lambda: (fleet.folder / "seized").exists())

    assert stop(fleet, "fleet", code=128 + signal.SIGKILL) < GRACE

    fleet.start("next", mode="processes")
    fleet.begun(attempt=2)
    run.cancel()
    assert run.wait(timeout=30) == "cancelled"


def test_the_deadline_is_printed_at_the_start(fleet: Fleet) -> None:
    """Who reads the log knows how long runs have after SIGTERM, and how long the process has."""
    fleet.start("w", grace="25s")
    assert "on SIGTERM runs have 20 s to end, and the worker ends within 25 s" in fleet.said("w")


@pytest.mark.alarm(240)
@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_trials_under_load(fleet: Fleet, redis: Redis, mode: str) -> None:
    """Each of ten busy workers ends in under the grace, told once or twice, and no run suffers by it."""
    trials = Trials(fleet, redis, GRACE, {"target": "local", "mode": mode, "cpus": 4})

    made = trials.make(10, lanes=2)

    assert [one for one in made if one.code or one.seconds >= GRACE] == []
    assert trials.check() >= 10


def test_a_rolling_restart_under_load(fleet: Fleet, redis: Redis) -> None:
    """Three workers are drained and replaced one after another: each run is done once, in one attempt, none is lost."""
    trials = Trials(fleet, redis, grace=60, executor={"target": "local", "mode": "threads", "cpus": 4})
    for number in range(3):
        trials.start(f"old-{number}")
    with trials.fed(lanes=1, naps=lambda: [random.uniform(0, 0.5)]):
        for number in range(3):
            until(lambda runs=100 * (number + 1): len(fleet.marks("left")) >= runs)
            fleet.kill(f"old-{number}", signal.SIGTERM)
            trials.start(f"new-{number}")
            assert fleet.ended(f"old-{number}") == 0

    assert trials.check() >= 300
    for file in ("left", "gone"):
        lines = fleet.marks(file)
        assert len(lines) == len(set(lines))
        assert {line.split()[1] for line in lines} == {"1"}
    assert {run.record.worker for run in trials.runs} >= {f"{age}-{n}" for age in ("old", "new") for n in range(3)}

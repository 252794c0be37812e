"""What a later attempt of a run does again, and what it does not."""

import signal
from collections.abc import Iterator

import pytest

from fleet import Fleet, until
from flowtilla import LogLine


def take_over(fleet: Fleet) -> None:
    """Kills the worker that waits at the gate, and lets another finish."""
    fleet.begun()
    fleet.kill("first", signal.SIGKILL)
    fleet.start("second", mode="processes")
    fleet.begun(attempt=2)
    fleet.open_gate()


@pytest.mark.parametrize(("checkpoint", "times"), [(True, 1), (False, 2)])
def test_a_checkpoint_saves_running_again(fleet: Fleet, checkpoint: bool, times: int) -> None:
    """A value that is no plain data is there again, as what it was; without a checkpoint its stage runs again."""
    fleet.start("first", mode="processes")
    run = fleet.submit(
        {"name": "pair", "target": "mark_and_pair", "checkpoint": checkpoint},
        {"name": "waits", "target": "gate_of_pair", "depends_on": ["pair"]},
    )
    take_over(fleet)

    assert run.result(timeout=30) == ["tuple", str(fleet.folder), 1]
    assert len(fleet.marks()) == times


def test_a_mapped_stage_is_committed_as_a_whole(fleet: Fleet) -> None:
    """Its list is there again for the next attempt, also one that is too large for Redis."""
    fleet.start("first", mode="processes")
    run = fleet.submit(
        {"name": "numbers", "target": "large", "checkpoint": True},
        {"name": "folder", "target": "mark"},
        {"name": "double", "type": "parameterized", "depends_on": ["numbers"], "checkpoint": True},
        {"name": "waits", "target": "gate_of_list", "depends_on": ["double", "folder"]},
    )
    take_over(fleet)

    assert run.result(timeout=60) == sum(range(100_000)) * 2
    assert {name: record.attempt for name, record in run.stages.items()} == {
        "numbers": 1,
        "folder": 1,
        "double": 1,
        "waits": 2,
    }


def test_the_log_of_all_attempts_is_kept(fleet: Fleet) -> None:
    """The whole log has what the attempt that died had written."""
    fleet.start("first", mode="processes")
    run = fleet.submit({"name": "gate"})
    lines = run.logs(follow=True)
    assert next(lines).attempt == 1
    take_over(fleet)

    run.wait(timeout=30)
    fleet.client._redis.delete(f"flowtilla:run:{run.id}:log")
    assert [line.message for line in run.logs()] == [f"attempt {attempt} waits at the gate" for attempt in (1, 2)]


def test_a_log_longer_than_redis_keeps_is_whole_over_attempts(fleet: Fleet) -> None:
    """What the dead worker's attempt wrote is there from the first line on, in order, though Redis forgot it."""
    fleet.start("first", mode="processes")
    run = fleet.submit({"name": "gate", "target": "chatty_gate"})
    redis = fleet.client._redis
    fleet.begun()
    until(lambda: "waits at the gate" in str(redis.xrevrange(f"flowtilla:run:{run.id}:log", count=1)))
    assert redis.xlen(f"flowtilla:run:{run.id}:log") < 12_000
    take_over(fleet)
    run.wait(timeout=60)

    said = [f"line {number}" for number in range(12_000)]
    lines = list(fleet_log(fleet, run.id))
    assert [line.message for line in lines] == [
        *said,
        "attempt 1 waits at the gate",
        *said,
        "attempt 2 waits at the gate",
    ]


def fleet_log(fleet: Fleet, run_id: str) -> Iterator[LogLine]:
    """The log from storage, as after the stream is gone."""
    fleet.client._redis.delete(f"flowtilla:run:{run_id}:log")
    return fleet.client.get(run_id).logs()

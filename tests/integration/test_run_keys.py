"""What a run keeps in Redis and its log, whatever is done to it: cancelled, retried, requeued."""

import signal

from redis import Redis
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from fleet import Fleet, until
from flowtilla import Run


def lines(run: Run) -> list[str]:
    return [line.message for line in run.logs()]


def test_a_run_that_is_cancelled_between_attempts_expires_with_all_its_keys(fleet: Fleet, redis: Redis) -> None:
    """What an attempt before had committed and logged goes when the job does, and until then the log is there."""
    fleet.start("w", grace="100ms")
    run = fleet.submit({"name": "stores", "target": "mark"}, {"name": "gate", "depends_on": ["stores"]})
    fleet.begun()
    until(lambda: lines(run))
    fleet.kill("w", signal.SIGTERM)
    assert fleet.ended("w") == 0

    run.cancel()

    assert run.state == "cancelled"
    kept = {key.decode(): redis.ttl(key) for key in redis.keys(f"*{run.id}*")}
    assert {key.rpartition(":")[2] for key in kept} == {run.id, "stages", "values", "log"}
    assert [key for key, seconds in kept.items() if not 0 < seconds <= fleet.settings.retention] == []
    assert lines(run) == ["attempt 1 waits at the gate"]


def test_a_retried_run_keeps_its_live_log(fleet: Fleet, redis: Redis) -> None:
    """The lines of its first end do not vanish in the middle of the second."""
    fleet.start("w")
    run = fleet.submit({"name": "complains"})
    assert run.wait(timeout=30) == "failed"
    assert redis.ttl(f"flowtilla:run:{run.id}:log") > 0
    fleet.kill("w", signal.SIGTERM)
    fleet.ended("w")

    run.retry()

    assert redis.ttl(f"flowtilla:run:{run.id}:log") == -1
    assert lines(run) == ["attempt 1 complains"]


def test_a_retried_run_keeps_its_earlier_lines(fleet: Fleet, redis: Redis) -> None:
    """Long after Redis forgot them they are in the log of the next end, once each, whoever queued the run again."""
    fleet.start("w")
    run = fleet.submit({"name": "complains"})
    assert run.wait(timeout=30) == "failed"
    redis.delete(f"flowtilla:run:{run.id}:log")

    run.retry()
    until(lambda: run.record.attempt == 2 and run.state == "failed")
    FailedJobRegistry("default", connection=redis, serializer=JSONSerializer).requeue(run.id)
    until(lambda: run.record.attempt == 3 and run.state == "failed")

    redis.delete(f"flowtilla:run:{run.id}:log")
    assert lines(run) == [f"attempt {number} complains" for number in (1, 2, 3)]

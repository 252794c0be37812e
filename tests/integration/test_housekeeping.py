"""What the fleet sweeps up: nothing of a run outlives its retention, but its artifacts."""

import time
from pathlib import Path

import pytest
from redis import Redis

from fleet import Fleet, until
from flowtilla.settings import WorkerSettings
from house import housekeep


def files(fleet: Fleet, area: str) -> list[Path]:
    return [path for path in (fleet.folder / "storage" / area).rglob("*") if path.is_file()]


def test_a_runs_files_go_with_its_retention_and_artifacts_stay(fleet: Fleet, redis: Redis) -> None:
    """Log and result are removed, the index forgets the run, the artifact is still there."""
    fleet.start("w")
    run = fleet.submit({"name": "stores"}, {"name": "large", "depends_on": ["stores"]}, input={"x": 1}, retention="1s")
    assert len(run.result(timeout=30)) == 100_000
    assert files(fleet, "logs") and files(fleet, "results") and files(fleet, "artifacts")

    def swept() -> bool:
        housekeep(fleet.settings, "sweep")
        return redis.zcard("flowtilla:ended") == 0

    until(swept)
    assert files(fleet, "logs") + files(fleet, "results") == []
    assert files(fleet, "artifacts")
    assert fleet.client.runs() == []


def test_rubbish_does_not_stop_the_sweep(fleet: Fleet, redis: Redis) -> None:
    """What never was a run of ours is forgotten, and what comes behind it is swept."""
    redis.zadd("flowtilla:ended", {"/bad-1": 1, "../x/y": 2, b"\xff/z": 3, "default/gone": 4})

    housekeep(fleet.settings, "sweep")

    assert redis.zcard("flowtilla:ended") == 0


def test_the_index_forgets_runs_that_a_dashboard_deleted(fleet: Fleet, redis: Redis) -> None:
    """Deleting the job is deleting the run."""
    run, kept = fleet.submit({"name": "echo"}), fleet.submit({"name": "echo"})
    redis.delete(f"rq:job:{run.id}")

    housekeep(fleet.settings, "sweep")

    assert redis.zrange("flowtilla:runs:default", 0, -1) == [kept.id.encode()]


def test_expired_leases_are_queued_again_in_order_before_what_waits(fleet: Fleet, redis: Redis) -> None:
    """The run whose lease ran out first comes first; a lease that holds is left alone."""
    runs = [fleet.submit({"name": "echo"}) for _ in range(4)]
    waiting = redis.rpop("rq:queue:default")
    redis.delete("rq:queue:default")
    for number, run in enumerate(runs[:3]):
        redis.hset(f"rq:job:{run.id}", mapping={"status": "started", "token": "1-x", "attempt": 1})
        redis.zadd("rq:wip:default", {f"{run.id}:1-x": "+inf"})
        redis.zadd("flowtilla:leases", {run.id: [2000, 1000, 10**14][number]})
    redis.rpush("rq:queue:default", waiting)
    redis.zadd("flowtilla:leases", {b"\xff": 1})
    redis.hset("flowtilla:looked", "at", round(time.time() * 1000))

    housekeep(fleet.settings, "look")

    expected = [runs[1].id, runs[0].id, runs[3].id]
    assert [run_id.decode() for run_id in redis.lrange("rq:queue:default", 0, -1)] == expected
    assert redis.zrange("rq:wip:default", 0, -1) == [f"{runs[2].id}:1-x".encode()]
    assert [redis.hget(f"rq:job:{run.id}", "losses") for run in runs] == [b"1", b"1", None, None]


@pytest.mark.parametrize(
    ("lease", "heartbeat", "since", "patient"),
    [(10, 3, 6, True), (10, 3, 3, False), (60, 3, 6, True), (5, 2.5, 3, True), (5, 2.5, 1, False), (1, 0.5, 1, False)],
)
def test_after_an_outage_the_living_have_a_lease_to_renew(
    fleet: Fleet, redis: Redis, lease: float, heartbeat: float, since: float, patient: bool
) -> None:
    """When nobody could look for a while nobody could renew either: what expired meanwhile is not taken yet.

    Before a lease can have run out that was renewed in time that is known; a look that came late says nothing.
    """
    run = fleet.submit({"name": "echo"})
    redis.delete("rq:queue:default")
    redis.hset(f"rq:job:{run.id}", mapping={"status": "started", "token": "1-x", "attempt": 1})
    redis.zadd("flowtilla:leases", {run.id: 1000})
    worker = WorkerSettings(lease=lease, heartbeat=heartbeat)
    services = fleet.settings.services.model_copy(update={"worker": worker})
    settings = fleet.settings.model_copy(update={"services": services})
    now = round(time.time() * 1000)
    redis.hset("flowtilla:looked", "at", round(now - since * 1000))

    housekeep(settings, "look")
    assert redis.llen("rq:queue:default") == (0 if patient else 1)
    patient_until = int(redis.hget("flowtilla:looked", "patient_until") or 0)
    assert (now < patient_until <= (time.time() + lease) * 1000) is patient

    redis.hset("flowtilla:looked", "patient_until", 0)
    housekeep(settings, "look")
    assert redis.lrange("rq:queue:default", 0, -1) == [run.id.encode()]

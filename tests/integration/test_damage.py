"""Keys of other types and bytes that are no text, wherever a worker reads: its loops complain, and go on."""

import time

import pytest
import rq
from redis import Redis

from fleet import Fleet, until
from house import KINDS, put

#: Keys that a beating worker writes, and those that all workers share.
WRITTEN = ("rq:worker:w", "rq:workers", "rq:workers:default", "flowtilla:claim:w")
SHARED = (
    "flowtilla:ended",
    "flowtilla:namespaces",
    "flowtilla:looked",
    "flowtilla:swept",
    "rq:queues",
    "rq:wip:default",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_beats_and_reaps_whatever_keys_hold(fleet: Fleet, redis: Redis, kind: str) -> None:
    """With all of them damaged it keeps its run; once they are gone it is seen, and takes a dead worker's run."""
    fleet.start("w")
    run = fleet.submit({"name": "gate"})
    fleet.begun()
    for key in (*WRITTEN, *SHARED):
        put(redis, key, kind)

    for _ in range(3):
        lease = redis.zscore("flowtilla:leases", run.id)
        until(lambda lease=lease: redis.zscore("flowtilla:leases", run.id) > lease)
    until(lambda: redis.type("rq:worker:w") == b"hash")
    redis.delete(*SHARED, "rq:workers", "rq:workers:default")
    redis.delete("rq:worker:w")
    until(lambda: [worker.name for worker in rq.Worker.all(connection=redis)] == ["w"])
    dead = fleet.submit({"name": "echo"}, queue="elsewhere", input={"x": 1})
    redis.delete("rq:queue:elsewhere")
    redis.hset(f"rq:job:{dead.id}", mapping={"status": "started", "token": "1-x", "attempt": 1, "origin": "default"})
    redis.zadd("flowtilla:leases", {dead.id: 1})
    assert dead.result(timeout=30) == 1
    fleet.open_gate()
    assert run.wait(timeout=30) == "finished"
    assert run.record.attempt == 1


@pytest.mark.parametrize("kind", ["string", "hash"])
def test_a_worker_outlives_that_the_leases_are_no_leases(fleet: Fleet, redis: Redis, kind: str) -> None:
    """No run can be held meanwhile; afterwards all of them end well."""
    fleet.start("w")
    run = fleet.submit({"name": "gate"})
    fleet.begun()
    put(redis, "flowtilla:leases", kind)
    until(lambda: "claiming failed" in fleet.said("w") and "looking for expired leases failed" in fleet.said("w"))

    redis.delete("flowtilla:leases")
    fleet.open_gate()

    assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1
    assert run.wait(timeout=110) == "finished"


@pytest.mark.parametrize("record", ["string", {"last_heartbeat": "yesterday"}, {"last_heartbeat": b"\xff"}])
def test_a_damaged_record_keeps_no_worker_from_starting(
    fleet: Fleet, redis: Redis, record: str | dict[str, str]
) -> None:
    """What cannot be read is no live worker of that name."""
    if isinstance(record, dict):
        redis.hset("rq:worker:w", mapping=record)
    else:
        put(redis, "rq:worker:w", record)

    fleet.start("w")

    (worker,) = rq.Worker.all(connection=redis)
    assert (worker.name, worker.pid) == ("w", fleet.workers["w"].pid)
    assert time.time() - worker.last_heartbeat.timestamp() < 30

"""What is in the queue and not a run of ours is set aside with evidence, and the worker goes on."""

import json
import os
import pickle
import zlib

import pytest
import rq
from redis import Redis
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from fleet import Fleet, until
from flowtilla.errors import MessageError, MessageTooLarge, UnsupportedVersion
from flowtilla.message import decode, encode

LIMIT = 1024**2
WORKFLOW = (
    '{"kind":"workflow","metadata":{"name":"w"},"spec":{"stages":[{"name":"a","target":"fleet_stages.nothing"}]}}'
)
FIELDS = {"input": {}, "namespace": "default", "config": {}, "timeout": None, "retention": 60.0}


def good() -> bytes:
    return encode(FIELDS, WORKFLOW, LIMIT)


def call(function: str, **kwargs: object) -> bytes:
    return json.dumps([function, None, [], kwargs]).encode()


def changed(**fields: object) -> bytes:
    function, instance, args, kwargs = json.loads(good())
    return json.dumps([function, instance, args, kwargs | fields]).encode()


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("unpickled",))


BAD = {
    "another function": (call("os.system", cmd="true"), MessageError, "the job calls 'os.system'"),
    "not JSON": (b"hello", MessageError, "neither JSON nor compressed JSON"),
    "a pickle": (pickle.dumps(Evil()), MessageError, "neither JSON nor compressed JSON"),
    "a compressed pickle": (zlib.compress(pickle.dumps(Evil())), MessageError, "not JSON"),
    "damaged": (zlib.compress(good())[:-9], MessageError, "not JSON"),
    "no call": (b"[1, 2]", MessageError, "not an RQ call"),
    "deep": (b"[" * 100_000, MessageError, "not JSON"),
    "a bomb": (zlib.compress(b" " * 50_000_000), MessageTooLarge, "over the limit"),
    "newer": (changed(version=2), UnsupportedVersion, "upgrade the workers"),
    "an unknown field": (changed(evil=1), MessageError, "evil: unknown key"),
    "a namespace that leads out": (changed(namespace="../x"), MessageError, "namespace"),
    "no workflow": (changed(workflow=None), MessageError, "workflow"),
    "a broken workflow": (changed(workflow={"kind": "workflow"}), MessageError, "is required"),
    "nothing": (b"", MessageError, "not JSON"),
}


@pytest.mark.parametrize(("data", "error", "said"), BAD.values(), ids=BAD.keys())
def test_a_message_that_is_not_ours_is_told_apart(data: bytes, error: type[Exception], said: str) -> None:
    """Each kind of damage has its error, and none runs anything."""
    with pytest.raises(error, match=said):
        decode(data, LIMIT)


def test_bad_messages_are_set_aside_and_the_worker_goes_on(fleet: Fleet, redis: Redis) -> None:
    """Each is in RQ's failed registry with the reason; what is no job at all is in the list of damaged entries."""
    for number, (data, _, _) in enumerate(BAD.values()):
        redis.hset(f"rq:job:bad-{number}", mapping={"status": "queued", "origin": "default", "data": data})
        redis.rpush("rq:queue:default", f"bad-{number}")
    redis.hset("rq:job:dataless", mapping={"status": "queued", "origin": "default"})
    redis.set("rq:job:a-string", "x")
    redis.rpush("rq:queue:default", "dataless", "a-string", "deleted", b"\xff\xfe", "with space")
    redis.hset("rq:job:with space", mapping={"status": "queued"})
    redis.sadd("rq:queues", "rq:queue:default")

    fleet.start("w")
    assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1

    registry = FailedJobRegistry("default", connection=redis, serializer=JSONSerializer)
    until(lambda: len(registry.get_job_ids(cleanup=False)) == len(BAD) + 1)
    for number, (_, _, said) in enumerate(BAD.values()):
        job = Job.fetch(f"bad-{number}", connection=redis, serializer=JSONSerializer)
        assert job.get_status() == "failed"
        assert said.replace("\\", "") in job.latest_result().exc_string
    damaged = [json.loads(entry) for entry in redis.lrange("flowtilla:damaged", 0, -1)]
    assert {(entry["id"], entry["found"]) for entry in damaged} == {("a-string", "string"), ("with space", "hash")}
    assert "Traceback" not in fleet.said("w")
    assert not (fleet.folder / "unpickled").exists()


def test_keys_of_another_kind_stop_no_worker(fleet: Fleet, redis: Redis) -> None:
    """A string where a queue should be, rubbish among leases and ended runs: other queues are served all the same."""
    redis.set("rq:queue:odd", "x")
    redis.zadd("flowtilla:leases", {b"\xff": 1, "../x": 2, "nobody": 3})
    redis.zadd("flowtilla:ended", {"/bad-1": 1, "../x/y": 2, b"\xff/z": 3})

    fleet.start("w", "-q", "odd", "-q", "default")

    assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1
    until(lambda: redis.zcard("flowtilla:leases") == 0)
    assert "Traceback" not in fleet.said("w")


def test_a_plain_rq_worker_refuses_and_puts_the_run_back(fleet: Fleet, redis: Redis) -> None:
    """With pickle as with JSON: a sentence in its log, nothing half run, and the run is done by a worker of ours."""
    run = fleet.submit({"name": "mark"})
    for serializer in ("pickle", "json"):
        redis.hset(f"rq:job:{run.id}", "retry_intervals", "[1]")
        worker = rq.SimpleWorker(["default"], connection=redis, serializer=serializer)
        worker.log_job_description = False
        worker.work(burst=True)

        assert redis.zcard("rq:failed:default") == 0
        assert run.state == "queued"
        assert redis.zcard("rq:scheduled:default") == 1
        if serializer == "pickle":
            # What the fleet's workers do when the time has come.
            redis.zrem("rq:scheduled:default", run.id)
            redis.hset(f"rq:job:{run.id}", "status", "queued")
            redis.rpush("rq:queue:default", run.id)

    fleet.start("w")
    assert run.result(timeout=30) == str(fleet.folder)
    assert len(fleet.marks()) == 1


def test_the_refusal_says_what_to_do(fleet: Fleet, redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads the plain worker's log learns which command to start instead."""
    fleet.submit({"name": "mark"})
    rq.SimpleWorker(["default"], connection=redis).work(burst=True)
    assert "which a plain `rq worker` cannot run" in caplog.text
    assert "Start `flowtilla worker`" in caplog.text

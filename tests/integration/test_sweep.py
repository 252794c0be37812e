"""What a sweep sets right: whatever RQ's tools, people or damaged keys did to a run, it ends and leaves nothing."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq.job import Job
from rq.serializers import JSONSerializer

from fleet import Fleet, until
from flowtilla import Run
from flowtilla_worker.scripts import SWEEP_DUE
from flowtilla_worker.sweep import Sweep
from house import KINDS, housekeep, put


def started(fleet: Fleet, redis: Redis, lease: bool = False, token: str | None = "1-x") -> Run:
    """Returns a run that looks as if a worker had it in hand."""
    run = fleet.submit({"name": "echo"}, input={"x": 1})
    redis.lrem("rq:queue:default", 0, run.id)
    redis.hset(f"rq:job:{run.id}", mapping={"status": "started", "attempt": 1} | ({"token": token} if token else {}))
    redis.zadd("rq:wip:default", {f"{run.id}:{token or '1-gone'}": "+inf"})
    if lease:
        redis.zadd("flowtilla:leases", {run.id: 10**14})
    return run


def keys_of(redis: Redis, run: Run) -> set[str]:
    """Returns the names of the keys that are of a run alone."""
    return {key.decode() for key in redis.keys(f"*{run.id}*")}


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """A web server that somebody would like the worker to ask: its address, and who asked for what."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    server.server_close()


def test_nothing_that_a_job_names_is_imported_called_or_asked(
    fleet: Fleet, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, list[str]]
) -> None:
    """A job that RQ's maintenance would fail, with its callback and its webhook, is taken back and run instead."""
    url, requests = asked
    attacked = tmp_path / "attacked"
    monkeypatch.setenv("ATTACKED", str(attacked))
    run, plain = started(fleet, redis, token=None), fleet.submit({"name": "echo"})
    hook = {"url": url, "job_status": "failed", "method": "POST"}
    for one in (run, plain):
        fields = {"failure_callback_name": "attacker.called", "webhooks": json.dumps([hook]), "retries_left": 0}
        redis.hset(f"rq:job:{one.id}", mapping=fields)
    redis.zrem("rq:wip:default", f"{run.id}:1-gone")
    redis.zadd("rq:wip:default", {f"{run.id}:expired": 1})
    # The second is none of ours, as RQ sees it: a plain job whose worker died.
    redis.hdel(f"rq:job:{plain.id}", "namespace", "workflow")
    redis.hset(f"rq:job:{plain.id}", "status", "started")
    redis.lrem("rq:queue:default", 0, plain.id)
    redis.zadd("rq:wip:default", {f"{plain.id}:expired": 1})

    housekeep(fleet.settings, "sweep")
    fleet.start("w")
    redis.zadd("flowtilla:leases", {run.id: 1}, xx=True)

    assert fleet.submit({"name": "echo"}, input={"x": 2}).result(timeout=30) == 2
    assert (attacked.exists(), requests) == (False, [])
    assert run.result(timeout=30) == 1
    housekeep(fleet.settings, "sweep")
    assert (attacked.exists(), requests) == (False, [])
    assert redis.hget(f"rq:job:{plain.id}", "status") == b"started"


@pytest.mark.parametrize("token", ["1-x", None])
def test_a_started_run_without_a_lease_is_run_again(fleet: Fleet, redis: Redis, token: str | None) -> None:
    """Its worker is dead and the key of the leases gone, or it never had a token: it gets a lease, which runs out."""
    run = started(fleet, redis, token=token)

    housekeep(fleet.settings, "sweep")

    assert redis.zscore("flowtilla:leases", run.id) > time.time() * 1000 + 5000
    fleet.start("w")
    redis.zadd("flowtilla:leases", {run.id: 1})
    assert run.result(timeout=30) == 1
    assert redis.zrange("rq:wip:default", 0, -1) == []


def test_a_started_run_that_no_registry_names_is_run_again(fleet: Fleet, redis: Redis) -> None:
    """Leases and RQ's registry are both gone: the index of its namespace still names it."""
    run = started(fleet, redis)
    redis.delete("rq:wip:default")

    housekeep(fleet.settings, "sweep")

    assert redis.zscore("flowtilla:leases", run.id) is not None


def test_a_worker_sweeps_by_itself_within_a_minute(fleet: Fleet, redis: Redis) -> None:
    """Nobody has to ask for it."""
    run = started(fleet, redis)
    fleet.start("w")
    assert run.result(timeout=60) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_one_worker_of_the_fleet_sweeps_at_a_time(redis: Redis, kind: str) -> None:
    """Until the time is over it is nobody's turn, whatever was written there before."""

    def turn(milliseconds: int) -> bool:
        return bool(redis.eval(SWEEP_DUE.text, 1, "flowtilla:swept", milliseconds))

    put(redis, "flowtilla:swept", kind)
    assert [turn(60_000), turn(60_000), turn(60_000)] == [True, False, False]
    redis.set("flowtilla:swept", round(time.time() * 1000) + 10**9)
    assert [turn(60_000), turn(60_000)] == [True, False]
    until(lambda: turn(50))


def test_a_worker_whose_leases_were_deleted_keeps_its_run(fleet: Fleet, redis: Redis) -> None:
    """It renews: the run goes on in its first attempt."""
    fleet.start("w")
    run = fleet.submit({"name": "gate"})
    fleet.begun()
    redis.delete("flowtilla:leases")

    housekeep(fleet.settings, "sweep")
    fleet.open_gate()

    assert run.wait(timeout=30) == "finished"
    assert run.record.attempt == 1


def test_the_registry_of_started_runs_forgets_what_is_not_started(fleet: Fleet, redis: Redis) -> None:
    """Deleted, ended, claimed anew: `rq info` counts the runs in hand, and entries of plain workers that beat."""
    held, deleted, ended, anew = (started(fleet, redis, lease=True) for _ in range(4))
    redis.delete(f"rq:job:{deleted.id}")
    redis.hset(f"rq:job:{ended.id}", "status", "failed")
    redis.hset(f"rq:job:{anew.id}", "token", "2-y")
    redis.zadd("rq:wip:default", {f"{ended.id}:plain": time.time() + 60})

    housekeep(fleet.settings, "sweep")

    left = {f"{held.id}:1-x".encode(), f"{ended.id}:plain".encode()}
    assert set(redis.zrange("rq:wip:default", 0, -1)) == left


def test_a_run_that_was_deleted_while_it_ran_leaves_nothing(fleet: Fleet, redis: Redis) -> None:
    """Deleting the job in a dashboard deletes the run: its worker stops, its keys and its files go."""
    fleet.start("w")
    run = fleet.submit({"name": "mark"}, {"name": "gate", "depends_on": ["mark"]})
    fleet.begun()
    until(lambda: len(keys_of(redis, run)) > 1)
    Job.fetch(run.id, connection=redis, serializer=JSONSerializer).delete()
    until(lambda: "lost" in fleet.said("w"))

    housekeep(fleet.settings, "sweep")

    assert keys_of(redis, run) == set()
    assert redis.zrange("rq:wip:default", 0, -1) == redis.zrange("flowtilla:runs:default", 0, -1) == []
    assert redis.zrange("flowtilla:ended", 0, -1) == [f"default/{run.id}".encode()]
    until(lambda: redis.zcard("flowtilla:leases") == 0)


def test_a_run_that_rq_cancelled_is_cancelled(fleet: Fleet, redis: Redis) -> None:
    """`Job.cancel` only says so: the worker that has the run stops it, and one that waits is kept its time and goes."""
    fleet.start("w", queues='["busy"]')
    running, waiting = fleet.submit({"name": "gate"}, queue="busy"), fleet.submit({"name": "echo"})
    fleet.begun()
    for run in (running, waiting):
        Job.fetch(run.id, connection=redis, serializer=JSONSerializer).cancel()

    housekeep(fleet.settings, "sweep")

    until(lambda: redis.hget(f"rq:job:{running.id}", "token") is None)
    for run in (running, waiting):
        assert run.state == "cancelled"
        kept = fleet.settings.retention
        assert kept - 60 < redis.ttl(f"rq:job:{run.id}") <= kept
        assert redis.zscore(f"rq:canceled:{run.record.queue}", run.id) > time.time() + kept - 60


def test_what_rq_would_clean_is_cleaned(fleet: Fleet, redis: Redis) -> None:
    """Expired entries of finished, failed and canceled runs go, of queues without a worker too; and dead workers."""
    kept = fleet.submit({"name": "echo"}, queue="unserved")
    kept.cancel()
    for queue in ("default", "unserved"):
        for kind in ("finished", "failed"):
            redis.zadd(f"rq:{kind}:{queue}", {"old": 1, "new": time.time() + 60})
        redis.zadd(f"rq:canceled:{queue}", {"old": 1})
        redis.sadd(f"rq:workers:{queue}", "rq:worker:dead", "rq:worker:alive")
    redis.sadd("rq:workers", "rq:worker:dead", "rq:worker:alive")
    redis.hset("rq:worker:alive", "state", "idle")

    housekeep(fleet.settings, "sweep")

    for queue in ("default", "unserved"):
        for kind in ("finished", "failed"):
            assert redis.zrange(f"rq:{kind}:{queue}", 0, -1) == [b"new"]
        assert redis.smembers(f"rq:workers:{queue}") == {b"rq:worker:alive"}
    assert redis.zrange("rq:canceled:unserved", 0, -1) == [kept.id.encode()]
    assert redis.exists("rq:canceled:default") == 0
    assert redis.smembers("rq:workers") == {b"rq:worker:alive"}


def test_a_run_that_rq_requeued_is_not_swept_away(fleet: Fleet, redis: Redis) -> None:
    """Its former end let the keys expire and the files be removed: neither happens while it waits."""
    run = fleet.submit({"name": "echo"})
    redis.expire(f"rq:job:{run.id}", 1000)
    redis.zadd("flowtilla:ended", {f"default/{run.id}": 1})

    housekeep(fleet.settings, "sweep")

    assert redis.ttl(f"rq:job:{run.id}") == -1
    assert fleet.client.runs()[0].id == run.id
    assert redis.zcard("flowtilla:ended") == 0


def test_files_that_cannot_be_removed_keep_nobody_waiting(fleet: Fleet, redis: Redis) -> None:
    """The entry is looked at again later, and those behind it are swept now."""
    storage = fleet.folder / "storage"
    (storage / "logs" / "default").mkdir(parents=True)
    (storage / "logs" / "default" / "stuck").write_text("a file where a folder should be")
    (storage / "results" / "default").mkdir(parents=True)
    (storage / "results" / "default" / "gone").mkdir()
    redis.zadd("flowtilla:ended", {"default/stuck": 1, "default/gone": 2})

    housekeep(fleet.settings, "sweep")

    assert not (storage / "results" / "default" / "gone").exists()
    assert redis.zrange("flowtilla:ended", 0, -1) == [b"default/stuck"]
    assert redis.zscore("flowtilla:ended", "default/stuck") > time.time() + 600


def test_what_an_interrupted_sweep_left_is_soon_due_again(
    fleet: Fleet, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker dies or Redis goes away while it removes files: that is no reason to leave them for an hour."""
    redis.zadd("flowtilla:ended", {"default/left": 1})

    def go_away(sweep: Sweep, namespace: str, run_id: str) -> None:
        raise RedisConnectionError(f"Redis went away while {run_id} was removed")

    with monkeypatch.context() as patched, pytest.raises(RedisConnectionError):
        patched.setattr(Sweep, "_remove_files", go_away)
        housekeep(fleet.settings, "sweep")

    assert redis.zrange("flowtilla:ended", 0, -1) == [b"default/left"]
    assert time.time() < redis.zscore("flowtilla:ended", "default/left") < time.time() + 120


def test_a_long_index_is_looked_through_in_turns(fleet: Fleet, redis: Redis) -> None:
    """Each sweep goes on where the last one stopped, until all was looked at."""
    redis.sadd("flowtilla:namespaces", "long")
    redis.zadd("flowtilla:runs:long", {f"gone-{number}": number for number in range(3000)})

    housekeep(fleet.settings, "sweep")

    assert redis.exists("flowtilla:runs:long") == 0
    assert redis.zcard("flowtilla:ended") == 3000


@pytest.mark.parametrize("kind", KINDS)
def test_no_damaged_key_stops_a_sweep_or_a_look(fleet: Fleet, redis: Redis, kind: str) -> None:
    """Whatever any one key holds, what does not depend on it is swept, taken back and queued."""
    fleet.submit({"name": "echo"}).cancel()
    damaged = [
        *("flowtilla:ended", "flowtilla:namespaces", "flowtilla:runs:bad", "flowtilla:leases", "flowtilla:swept"),
        *(f"rq:{one}:default" for one in ("wip", "finished", "failed", "canceled", "scheduled", "workers", "queue")),
        *("rq:queues", "rq:workers", "rq:job:bad", "flowtilla:looked"),
    ]
    for key in damaged:
        redis.flushall()
        gone = fleet.submit({"name": "echo"}, namespace="swept")
        redis.delete(f"rq:job:{gone.id}")
        due, taken = fleet.submit({"name": "echo"}, delay=0), started(fleet, redis)
        redis.zadd("flowtilla:leases", {taken.id: 1, "bad": 1})
        redis.zadd("flowtilla:ended", {"default/x": 1, b"\xff": 2})
        redis.zadd("rq:finished:default", {"old": 1})
        redis.zadd("rq:wip:default", {b"bad:\xff": "+inf", b"\xff": 1})
        redis.zadd("rq:scheduled:default", {"bad": 1, b"\xff": 1})
        redis.zadd("flowtilla:runs:default", {"bad": 1})
        redis.sadd("flowtilla:namespaces", "bad", b"\xff")
        redis.sadd("rq:queues", "bad", b"\xff", b"rq:queue:\xff")
        redis.hset("flowtilla:looked", "at", round(time.time() * 1000))
        put(redis, key, kind)

        housekeep(fleet.settings, "look")
        housekeep(fleet.settings, "sweep")

        if key not in ("flowtilla:leases", "rq:queue:default", "flowtilla:looked"):
            assert redis.hget(f"rq:job:{taken.id}", "status") == b"queued", key
        if key not in ("rq:scheduled:default", "rq:queue:default"):
            assert redis.hget(f"rq:job:{due.id}", "status") == b"queued", key
        if key == "rq:queue:default":
            assert due.id.encode() in redis.zrange("rq:scheduled:default", 0, -1) or kind == "list"
        if key not in ("flowtilla:namespaces", "flowtilla:ended"):
            assert redis.exists("flowtilla:runs:swept") == 0, key
        if key != "rq:finished:default":
            assert redis.exists("rq:finished:default") == 0, key
        if key != "flowtilla:ended":
            assert redis.zcount("flowtilla:ended", "-inf", time.time()) == 0, key


def test_a_sweep_keeps_up_with_a_fleet_that_is_fast(fleet: Fleet, redis: Redis) -> None:
    """Whatever is due goes with one sweep: more runs may end in a minute than fit into any fixed number."""
    redis.zadd("flowtilla:ended", {f"default/default--{number}": number for number in range(1500)})
    redis.zadd("flowtilla:ended", {"default/default--later": time.time() + 100})

    housekeep(fleet.settings, "sweep")

    assert redis.zrange("flowtilla:ended", 0, -1) == [b"default/default--later"]

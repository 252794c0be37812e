"""Redis is there and refuses: whatever it says, runs in hand wait for it, and go on in the attempt they are in."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis, RedisError

import flowtilla
from fleet import Fleet, until
from flowtilla import keys
from flowtilla.errors import QueueUnavailable, RunNotFound
from flowtilla.redis_settings import RedisSettings
from valkeys import Valkey

#: The user that the workers of these tests are.
WORKER, RULES = "w:worker-secret", "on >worker-secret ~* &* +@all"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server that all tests leave as it was."""
    with Valkey(tmp_path_factory.mktemp("refusing")) as started:
        yield started


@pytest.fixture
def queue(server: Valkey) -> Valkey:
    """The server, emptied."""
    server.client.flushall()
    server.client.acl_setuser("w", reset=True)
    server.client.execute_command("ACL", "SETUSER", "w", *RULES.split())
    return server


@pytest.fixture
def fleet(queue: Valkey, tmp_path: Path) -> Iterator[Fleet]:
    """Workers with a user of their own, and the default lease."""
    with Fleet(queue.url_of(WORKER), tmp_path) as started:
        yield started


@contextmanager
def _disk_full(queue: Valkey) -> Iterator[None]:
    # Where the snapshot should go is a folder, which not even root can write a file over.
    (queue.folder / "dump.rdb").mkdir()
    queue.client.set("changed", 1)
    queue.client.config_set("save", "3600 1")
    queue.client.bgsave()
    until(lambda: queue.client.info("persistence")["rdb_last_bgsave_status"] == "err")
    yield
    queue.client.config_set("save", "")
    (queue.folder / "dump.rdb").rmdir()


@contextmanager
def _no_replicas(queue: Valkey) -> Iterator[None]:
    queue.client.config_set("min-replicas-to-write", 1)
    yield
    queue.client.config_set("min-replicas-to-write", 0)


@contextmanager
def _replica(queue: Valkey) -> Iterator[None]:
    queue.client.replicaof("127.0.0.1", "1")
    yield
    queue.client.replicaof("NO", "ONE")


@contextmanager
def _stale_replica(queue: Valkey) -> Iterator[None]:
    queue.client.config_set("replica-serve-stale-data", "no")
    queue.client.replicaof("127.0.0.1", "1")
    yield
    queue.client.replicaof("NO", "ONE")
    queue.client.config_set("replica-serve-stale-data", "yes")


@contextmanager
def _busy(queue: Valkey) -> Iterator[None]:
    queue.client.config_set("busy-reply-threshold", 50)

    def run() -> None:
        with suppress(RedisError), Redis(port=queue.port, socket_timeout=None) as own:
            own.eval("while true do end", 0)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: _refuses(queue.client.ping))
    yield
    queue.client.script_kill()
    thread.join()


@contextmanager
def _without(queue: Valkey, *rules: str) -> Iterator[None]:
    queue.client.execute_command("ACL", "SETUSER", "w", *rules)
    yield
    queue.client.execute_command("ACL", "SETUSER", "w", "reset", *RULES.split())


REFUSALS: dict[str, tuple[Callable[[Valkey], Any], str]] = {
    "MISCONF": (_disk_full, "cannot write to its disk"),
    "NOREPLICAS": (_no_replicas, "min-replicas-to-write"),
    "READONLY": (_replica, "it is a replica"),
    "MASTERDOWN": (_stale_replica, "it is a replica"),
    "BUSY": (_busy, "SCRIPT KILL"),
    "NOPERM": (lambda queue: _without(queue, "-evalsha"), "deploy/users.acl"),
    "NOPERM in a script": (lambda queue: _without(queue, "-hset"), "deploy/users.acl"),
    "NOPERM for keys": (lambda queue: _without(queue, "resetkeys", "~rq:*"), "deploy/users.acl"),
}


#: What a worker needs, taken away.
RULES_THAT_LACK = {
    "scripts": ["-evalsha", "-eval"],
    "a key": ["resetkeys", "~rq:*", "~flowtilla:claim:*"],
    "a channel": ["resetchannels"],
    **{command: [f"-{command}"] for command in ("hset", "hmget", "hincrby", "zadd", "lpop", "hdel")},
}


@pytest.mark.parametrize("lack", RULES_THAT_LACK)
def test_a_rule_that_is_missing_fails_no_run(queue: Valkey, fleet: Fleet, lack: str) -> None:
    """A run that comes while the worker's user may not do what it needs waits until it may, and is run then."""
    fleet.start("w")
    fleet.submit({"name": "nothing"}).wait(timeout=30)
    settings = fleet.settings.model_copy(update={"redis": RedisSettings(url=queue.url)})
    with flowtilla.Client(settings=settings) as client:
        with _without(queue, *RULES_THAT_LACK[lack]):
            run = client.submit(fleet.workflow({"name": "echo"}), input={"x": 1})
            said = len(fleet.said("w"))
            # A second round of all that it tries.
            until(lambda: fleet.said("w")[said:].count("deploy/users.acl") > 2)
        assert run.result(timeout=30) == 1


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_waited_out(queue: Valkey, fleet: Fleet, refusal: str) -> None:
    """The log says what it is and what to do; the stage's outcome is written afterwards, by the same attempt.

    What waited in the queue meanwhile is run too, and nothing of all that has failed.
    """
    refuse, advised = REFUSALS[refusal]
    fleet.start("w", lease="10s", heartbeat="3s")
    run = fleet.submit({"name": "mark"}, {"name": "gate", "depends_on": ["mark"]})
    fleet.begun()
    later = fleet.submit({"name": "echo"}, queue="default", input={"x": 1}, delay="1s")
    with refuse(queue):
        fleet.open_gate()
        until(lambda: f"{advised}" in fleet.said("w"))
        # A second round of all that it tries.
        until(lambda: fleet.said("w").count("Redis refuses") > 3)
    assert run.result(timeout=30) == str(fleet.folder)
    assert later.result(timeout=30) == 1
    assert [run.record.attempt, later.record.attempt] == [1, 1]
    assert len(fleet.marks()) == 1


def test_a_password_that_changes_is_waited_for(tmp_path: Path) -> None:
    """Who it does not let in any more waits until it does, and what is in hand goes on in its attempt."""
    with (
        Valkey(tmp_path / "server", "--requirepass", "first-secret", password="first-secret") as queue,
        Fleet(queue.url_of(":first-secret"), tmp_path) as fleet,
    ):
        fleet.start("w", lease="10s", heartbeat="3s")
        run = fleet.submit({"name": "gate"})
        fleet.begun()
        queue.client.config_set("requirepass", "second-secret")
        queue.client.client_kill_filter(_type="normal")
        until(lambda: fleet.said("w").count("refuses (AuthenticationError") > 1)
        fleet.open_gate()
        queue.client.config_set("requirepass", "first-secret")
        assert run.result(timeout=30) == str(tmp_path)
        assert run.record.attempt == 1
        assert "secret" not in fleet.said("w")


def test_full_memory_stops_what_is_new_and_nothing_else(queue: Valkey, fleet: Fleet) -> None:
    """Runs in hand are renewed, go on and end, in their attempt; new ones are refused, and queued ones wait."""
    fleet.start("w", lease="10s", heartbeat="3s")
    after = {"name": "after", "target": "mark", "depends_on": ["gate"]}
    run = fleet.submit({"name": "mark"}, {"name": "gate", "depends_on": ["mark"]}, after)
    fleet.begun()
    queue.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(QueueUnavailable, match="Its memory is full"):
            fleet.submit({"name": "nothing"})
        first = _lease(queue, run)
        # Longer than a lease: it is renewed.
        until(lambda: _lease(queue, run) > first + 12_000)
        fleet.open_gate()
        until(lambda: run.state == "finished")
        assert run.record.attempt == 1
        assert len(fleet.marks()) == 2
        assert run.result(timeout=30) == str(fleet.folder)
        queue.client.config_set("maxmemory", 0)
        queue.client.set("rq:suspended", 1)
        waiting = [fleet.submit({"name": "echo"}, input={"x": 1}, delay=delay) for delay in (None, "1s")]
        queue.client.config_set("maxmemory", 1)
        queue.client.delete("rq:suspended")
        until(lambda: "claiming failed" in fleet.said("w") and "looking for due runs" in fleet.said("w"))
        assert "raise maxmemory" in fleet.said("w")
    finally:
        queue.client.config_set("maxmemory", 0)
    assert [(one.result(timeout=30), one.record.attempt) for one in waiting] == [(1, 1), (1, 1)]


def test_full_memory_keeps_nobody_from_sweeping(queue: Valkey, fleet: Fleet) -> None:
    """Which frees some: of runs that are over, files and entries go."""
    fleet.start("w")
    large = {"name": "large", "depends_on": ["stores"]}
    run = fleet.submit({"name": "stores"}, large, input={"x": 1}, retention="1s")
    assert run.wait(timeout=30) == "finished"
    folders = [fleet.folder / "storage" / area / "default" for area in ("results", "logs")]
    queue.client.config_set("maxmemory", 1)
    try:
        # One that came just before would keep the next waiting.
        queue.client.delete(keys.SWEPT)
        until(lambda: queue.client.zcard(keys.ENDED) == 0)
    finally:
        queue.client.config_set("maxmemory", 0)
    assert [file for folder in folders for file in folder.rglob("*") if file.is_file()] == []
    assert "its memory is full" not in fleet.said("w")


def test_scripts_may_be_forgotten_at_any_moment(queue: Valkey, fleet: Fleet) -> None:
    """A run of many stages ends in its first attempt, and is renewed, while somebody flushes them all the time."""
    fleet.start("w")
    stop = threading.Event()

    def flush() -> None:
        with Redis(port=queue.port) as own:
            while not stop.wait(0.01):
                own.script_flush()

    thread = threading.Thread(target=flush)
    thread.start()
    try:
        names = [f"mark{number}" for number in range(30)]
        before = [[], *([name] for name in names)]
        stages = [{"name": name, "target": "mark", "depends_on": one} for name, one in zip(names, before, strict=False)]
        run = fleet.submit(*stages, {"name": "gate", "depends_on": names[-1:]})
        fleet.begun()
        first = _lease(queue, run)
        # Longer than a lease: the heartbeat teaches them too.
        until(lambda: _lease(queue, run) > first + 3_000)
        fleet.open_gate()
        assert run.result(timeout=30) == str(fleet.folder)
    finally:
        stop.set()
        thread.join()
    assert run.record.attempt == 1
    assert len(fleet.marks()) == 30


def test_a_run_evicted_while_it_waits_is_gone_and_harms_no_other(queue: Valkey, fleet: Fleet) -> None:
    """Eviction deletes keys. Nobody can know of a run that is deleted; the next in the queue is run."""
    gone, there = (fleet.submit({"name": "echo"}, input={"x": x}) for x in (1, 2))
    queue.client.delete(keys.job(gone.id))
    fleet.start("w")
    assert there.result(timeout=30) == 2
    with pytest.raises(RunNotFound):
        gone.wait(timeout=5)


def test_a_run_evicted_while_it_runs_is_stopped(queue: Valkey, fleet: Fleet) -> None:
    """Its worker finds that it is no longer its own, writes nothing of it again, and works on."""
    fleet.start("w")
    run = fleet.submit({"name": "gate"})
    fleet.begun()
    queue.client.delete(keys.job(run.id))
    until(lambda: "attempt 1 lost" in fleet.said("w"))
    assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1
    assert not queue.client.exists(keys.job(run.id))


def test_leases_that_are_evicted_are_written_again(queue: Valkey, fleet: Fleet) -> None:
    """The next heartbeat does so; the run goes on in its attempt."""
    fleet.start("w")
    run = fleet.submit({"name": "gate"})
    fleet.begun()
    queue.client.delete(keys.LEASES)
    until(lambda: queue.client.zscore(keys.LEASES, run.id))
    fleet.open_gate()
    assert run.result(timeout=30) == str(fleet.folder)
    assert run.record.attempt == 1


def test_what_a_run_committed_and_was_evicted_runs_again(queue: Valkey, fleet: Fleet) -> None:
    """An attempt that finds nothing of its stages left runs them again, and ends right."""
    fleet.start("w", grace="100ms")
    run = fleet.submit({"name": "mark"}, {"name": "gate", "depends_on": ["mark"]})
    fleet.begun()
    until(lambda: run.stages.get("mark") is not None and run.stages["mark"].state == "finished")
    queue.client.delete(keys.stages(run.id), keys.values(run.id))
    fleet.kill("w", 15)
    assert fleet.ended("w") == 0
    fleet.start("second")
    fleet.begun(attempt=2)
    fleet.open_gate()
    assert run.result(timeout=30) == str(fleet.folder)
    assert len(fleet.marks()) == 2


@pytest.mark.parametrize("refusal", ["NOREPLICAS", "READONLY", "NOPERM", "NOPERM in a script"])
def test_a_client_is_told_what_to_do(queue: Valkey, fleet: Fleet, refusal: str) -> None:
    """Its error says what Redis refuses and what to do; once that is done, the same client is served."""
    refuse, advised = REFUSALS[refusal]
    with refuse(queue), pytest.raises(QueueUnavailable) as caught:
        fleet.submit({"name": "nothing"})
    assert advised.lower() in str(caught.value).lower()
    assert "worker-secret" not in str(caught.value)
    assert fleet.submit({"name": "nothing"}).state == "queued"


def _lease(queue: Valkey, run: flowtilla.Run) -> float:
    """Returns until when a run is leased, in milliseconds."""
    return queue.client.zscore(keys.LEASES, run.id) or 0.0


def _refuses(command: Callable[[], Any]) -> bool:
    try:
        command()
    except RedisError:
        return True
    return False

"""The users of `deploy/users.acl` on a real server: each may do what it needs, and cannot do what it must not."""

import asyncio
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError
from rq.job import Job
from rq.serializers import JSONSerializer

from fleet import Fleet, until
from flowtilla import AsyncClient, Client, keys
from flowtilla.errors import QueueFull, QueueUnavailable, RunFailed
from flowtilla.redis_settings import RedisSettings
from flowtilla.settings import LimitsSettings
from flowtilla.submission import prepare
from flowtilla_worker.dev.dashboard import Dashboard
from valkeys import Valkey

ROOT = Path(__file__).parents[2]
START = ["sh", str(ROOT / "deploy" / "redis.sh"), "--appendonly", "yes"]
PASSWORDS = {f"REDIS_{user}_PASSWORD": f"{user.lower()}-secret" for user in ("WORKER", "PRODUCER", "DASHBOARD")}

#: Keys of a run that another namespace has, and of all runs.
THEIRS = [key("other--1") for key in (keys.job, keys.results, keys.stages, keys.values, keys.log)]
ALL = [keys.LEASES, keys.ENDED, keys.NAMESPACES, keys.QUEUES, keys.WORKERS, keys.runs("other")]


@pytest.fixture(scope="module")
def started_with(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Runs `deploy/redis.sh`; returns the folder with what it wrote, and what it would have started."""
    folder = tmp_path_factory.mktemp("acl")
    (folder / "docker-entrypoint.sh").write_text('#!/bin/sh\necho "$@"\n')
    (folder / "docker-entrypoint.sh").chmod(0o755)
    env = {"PATH": f"{folder}:/usr/bin:/bin", **PASSWORDS}
    said = subprocess.run(START, cwd=folder, env=env, check=True, capture_output=True, text=True).stdout
    return folder, said


@pytest.fixture(scope="module")
def server(started_with: tuple[Path, str]) -> Iterator[Valkey]:
    """A server with these users, and one for the test itself."""
    users = started_with[0] / "users.acl"
    with users.open("a") as file:
        file.write("user test on >test-secret ~* &* +@all\n")
    with Valkey(started_with[0] / "server", "--aclfile", str(users), user="test", password="test-secret") as opened:
        yield opened


@pytest.fixture
def queue(server: Valkey) -> Valkey:
    """The server, emptied; what it refused is forgotten."""
    server.client.flushall()
    server.client.acl_log_reset()
    return server


@pytest.fixture
def fleet(queue: Valkey, tmp_path: Path) -> Iterator[Fleet]:
    """Workers, with their user."""
    with Fleet(queue.url_of("worker:worker-secret"), tmp_path) as started:
        yield started


@pytest.fixture
def producer(queue: Valkey, fleet: Fleet) -> Iterator[Fleet]:
    """A producer, with its user, of the namespace `default`."""
    with Fleet(queue.url_of("producer:producer-secret"), fleet.folder) as started:
        yield started


@pytest.fixture
def connection(queue: Valkey) -> Iterator[Redis]:
    """What somebody could do who has the producer's password."""
    with Redis(port=queue.port, username="producer", password="producer-secret") as opened:
        yield opened


def _refused(queue: Valkey, user: str) -> list[str]:
    """Returns what the server refused a user, but for the name of the library, which it need not know."""
    entries = [entry for entry in queue.client.acl_log() if entry["username"] == user]
    return [entry["object"] for entry in entries if entry["object"] != "client|setinfo"]


def _arguments(rules: str) -> list[str]:
    """Returns rules of a user, of which a selector in parentheses is one."""
    return re.findall(r"\(.*?\)|\S+", rules)


def test_the_script_starts_redis_with_the_users_and_without_their_passwords(
    started_with: tuple[Path, str], tmp_path: Path
) -> None:
    """Each password's hash stands in the file; one that is missing stops the start."""
    folder, said = started_with
    assert said == f"redis-server --aclfile {folder}/users.acl --appendonly yes\n"
    assert "secret" not in (folder / "users.acl").read_text().replace("test-secret", "")
    for name in PASSWORDS:
        env = {"PATH": f"{folder}:/usr/bin:/bin", **PASSWORDS, name: ""}
        refused = subprocess.run(START, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert refused.returncode != 0
        assert f"{name}: must be set" in refused.stderr


def test_who_names_no_user_may_ask_whether_it_is_there(queue: Valkey) -> None:
    """And that is all: it is what a health check needs."""
    with Redis(port=queue.port) as nobody:
        assert nobody.ping()
        for command in (lambda: nobody.get("x"), nobody.info, lambda: nobody.llen("rq:queue:default")):
            with pytest.raises(NoPermissionError):
                command()


@pytest.mark.alarm(240)
def test_a_workers_user_is_refused_nothing_that_it_needs(queue: Valkey, fleet: Fleet) -> None:
    """Results of all sizes, artifacts, maps, failures, retries, schedules, cancelling, a drain, a death, a sweep."""
    fleet.start("one")
    mapped = {"name": "double", "type": "parameterized", "map_on": "x"}
    assert fleet.submit(mapped, input={"x": [1, 2, 3]}).result(timeout=30) == [2, 4, 6]
    assert len(fleet.submit({"name": "large"}).result(timeout=30)) == 100_000
    assert fleet.submit({"name": "stores"}, input={"x": 1}).result(timeout=30) == 1
    bad = fleet.submit({"name": "fails", "retries": 1})
    with pytest.raises(RunFailed):
        bad.result(timeout=30)
    bad.retry()
    bad.wait(timeout=30)
    later = fleet.submit({"name": "echo"}, input={"x": 1}, delay="1s")
    waiting = fleet.submit({"name": "echo"}, queue="nobodys")
    waiting.cancel()
    assert (later.result(timeout=30), str(waiting.state)) == (1, "cancelled")
    stopped = fleet.submit({"name": "gate"})
    fleet.begun()
    stopped.cancel()
    assert stopped.wait(timeout=30) == "cancelled"
    (fleet.folder / "begun-1").unlink()

    run = fleet.submit({"name": "mark"}, {"name": "gate", "depends_on": ["mark"]})
    fleet.begun()
    fleet.kill("one", signal.SIGKILL)
    fleet.ended("one")
    fleet.start("two", grace="100ms")
    fleet.begun(attempt=2)
    fleet.kill("two", signal.SIGTERM)
    assert fleet.ended("two") == 0
    fleet.start("three")
    fleet.begun(attempt=3)
    fleet.open_gate()
    assert run.result(timeout=30) == str(fleet.folder)
    assert [worker.name for worker in fleet.client.workers()] == ["three"]
    until(lambda: queue.client.exists("flowtilla:swept"), seconds=60)
    fleet.kill("three", signal.SIGTERM)
    assert fleet.ended("three") == 0
    assert _refused(queue, "worker") == []


def test_a_workers_user_may_run_every_command_of_our_scripts(queue: Valkey) -> None:
    """Those too that no other test comes to."""
    scripts = [*ROOT.glob("worker/flowtilla_worker/scripts/*.lua"), *ROOT.glob("producer/flowtilla/scripts/*.lua")]
    names = {name for script in scripts for name in re.findall(r"p?call\(\s*'([A-Z]+)'", script.read_text())}
    assert len(names) > 20
    for name in names:
        arity = abs(queue.client.execute_command("COMMAND", "INFO", name)[name.lower()]["arity"])
        tried = queue.client.execute_command("ACL", "DRYRUN", "worker", name, *["rq:1"] * (arity - 1))
        assert b"permissions to run" not in tried, name


def test_a_workers_user_may_not_administer_the_server(queue: Valkey) -> None:
    """Nor touch a key that is neither RQ's nor ours."""
    with Redis(port=queue.port, username="worker", password="worker-secret") as worker:
        for command in (
            worker.flushall,
            worker.shutdown,
            worker.config_get,
            worker.keys,
            worker.acl_list,
            worker.script_flush,
            lambda: worker.replicaof("127.0.0.1", "1"),
            lambda: worker.get("other"),
            lambda: worker.set("other", 1),
            lambda: worker.publish("other", "x"),
        ):
            with pytest.raises(NoPermissionError):
                command()


def test_a_producer_enqueues_and_reads_its_own(queue: Valkey, fleet: Fleet, producer: Fleet) -> None:
    """Everything a client does but cancel, retry, and look at the whole fleet; blocking and asyncio."""
    fleet.start("w")
    run = producer.submit({"name": "stores"}, input={"x": 5}, tags=["t"])
    assert run.result(timeout=30) == 5
    assert [line.message for line in run.logs(follow=True)] == ["storing 5"]
    assert producer.client.get(run.id).stages["stores"].state == "finished"
    assert len(producer.submit({"name": "large"}).result(timeout=30)) == 100_000
    workflow = producer.workflow({"name": "echo"})
    many = producer.client.submit_many([{"workflow": workflow, "input": {"x": x}} for x in range(3)])
    assert [one.result(timeout=30) for one in many] == [0, 1, 2]
    soon = producer.submit({"name": "echo"}, input={"x": 7}, delay="500ms")
    front = producer.submit({"name": "echo"}, input={"x": 8}, at_front=True, idempotency_key="8")
    assert producer.submit({"name": "echo"}, idempotency_key="8") == front
    assert (soon.result(timeout=30), front.result(timeout=30)) == (7, 8)
    failed = producer.submit({"name": "fails"})
    with pytest.raises(RunFailed, match="as planned"):
        failed.result(timeout=30)
    assert failed in producer.client.runs(namespace="default")

    async def ask() -> Any:
        async with AsyncClient(settings=producer.settings) as client:
            return await (await client.submit(workflow, {"x": 9})).result(timeout=30)

    assert asyncio.run(ask()) == 9
    assert _refused(queue, "producer") == []


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda client, run: client.runs(namespace="other"),
        lambda client, run: client.runs(),
        lambda client, run: client.workers(),
        lambda client, run: client.get("other--1"),
        lambda client, run: client.submit("workflow.yaml", namespace="other"),
        lambda client, run: run.cancel(),
        lambda client, run: run.retry(),
    ],
    ids=["their runs", "all runs", "workers", "their run", "submit there", "cancel", "retry"],
)
def test_a_producer_is_told_what_it_may_not(
    queue: Valkey, producer: Fleet, monkeypatch: pytest.MonkeyPatch, forbidden: Callable[[Any, Any], Any]
) -> None:
    """A client of another namespace's runs, or of all, ends with one sentence."""
    monkeypatch.chdir(producer.folder)
    Path("workflow.yaml").write_text("{metadata: {name: w}, spec: {stages: [{name: a, target: fleet_stages.nothing}]}}")
    run = producer.submit({"name": "nothing"})
    queue.client.hset(keys.job(run.id), "status", "failed")
    with pytest.raises(QueueUnavailable, match="compare them with deploy/users"):
        forbidden(producer.client, run)


def test_a_producer_of_another_namespace_pushes_into_its_own_lines(queue: Valkey, fleet: Fleet) -> None:
    """With the rules as the docs say to write them, it submits there and nowhere else."""
    shipped = (ROOT / "deploy" / "users.acl").read_text().partition("user producer on ")[2].splitlines()[0]
    rules = shipped.partition(" ")[2].replace("default", "research").replace(" ~rq:queue:*", " ~rq:queue:*@research")
    queue.client.execute_command("ACL", "SETUSER", "researcher", "on", ">secret", *_arguments(rules))
    with Client(
        settings=fleet.settings.model_copy(update={"redis": RedisSettings(url=queue.url_of("researcher:secret"))})
    ) as own:
        run = own.submit(fleet.workflow({"name": "echo"}), {"x": 1}, namespace="research")
        with pytest.raises(QueueUnavailable):
            own.submit(fleet.workflow({"name": "echo"}), namespace="default")
        fleet.start("w")
        assert run.result(timeout=30) == 1
    with Redis(port=queue.port, username="researcher", password="secret") as connection:
        for line in ("rq:queue:default", "rq:queue:default@other"):
            with pytest.raises(NoPermissionError):
                connection.rpush(line, "research--1")


def test_a_producer_heeds_how_many_may_wait(queue: Valkey, fleet: Fleet, producer: Fleet) -> None:
    """It counts what waits, of others too, and is refused nothing that it needs for that."""
    fleet.submit({"name": "echo"}, namespace="other")
    limits = {"queues": {"default": {"max_queued": 2}}, "namespaces": {"default": {"max_queued": 5}}}
    settings = producer.settings.model_copy(update={"limits": LimitsSettings.model_validate(limits)})
    with Client(settings=settings) as limited:
        limited.submit(producer.workflow({"name": "echo"}))

        with pytest.raises(QueueFull, match="queue 'default' has 2 runs waiting"):
            limited.submit(producer.workflow({"name": "echo"}))
    assert _refused(queue, "producer") == []


@pytest.mark.parametrize("key", [*THEIRS, *ALL, "rq:queue:default", "rq:scheduled:default", "anything"])
def test_a_producer_reads_no_key_of_others(connection: Redis, key: str) -> None:
    """By no command that reads, whatever is there; nor by a script of its own."""
    reading = ("GET", "STRLEN", "TYPE", "TTL", "DUMP", "HGETALL", "HKEYS", "LLEN", "SMEMBERS", "ZCARD", "XLEN")
    ranges = ("LRANGE", "ZRANGE", "ZREVRANGE", "XRANGE", "XREVRANGE")
    commands = [[name, key] for name in reading] + [[name, key, "0", "-1"] for name in ranges]
    commands += [
        ["XREAD", "STREAMS", key, "0"],
        ["HGET", key, "data"],
        ["ZSCORE", key, "x"],
        ["COPY", key, "rq:queue:x"],
    ]
    # How long a queue is, whoever heeds `max_queued` must know.
    for command in [command for command in commands if command != ["LLEN", "rq:queue:default"]]:
        with pytest.raises(NoPermissionError):
            connection.execute_command(*command)
        with pytest.raises(ResponseError, match="ACL failure"):
            _by_script(connection, command)


@pytest.mark.parametrize("key", [*THEIRS, keys.LEASES, keys.ENDED, keys.runs("other"), "rq:suspended", "anything"])
def test_a_producer_writes_no_key_of_others(connection: Redis, key: str) -> None:
    """Neither run, nor lease, nor switch; nor by a script of its own."""
    for command in (
        ["SET", key, "1"],
        ["DEL", key],
        ["HSET", key, "status", "queued"],
        ["ZADD", key, "1", "x"],
        ["RPUSH", key, "x"],
        ["SADD", key, "x"],
        ["EXPIRE", key, "1"],
        ["RENAME", key, "rq:queue:x"],
        ["XADD", key, "*", "line", "x"],
    ):
        with pytest.raises(NoPermissionError):
            connection.execute_command(*command)
        with pytest.raises(ResponseError, match="ACL failure"):
            _by_script(connection, command)


@pytest.mark.parametrize(
    "command",
    [
        ["LPOP", "rq:queue:default"],
        ["LREM", "rq:queue:default", "0", "other--1"],
        ["DEL", "rq:queue:default"],
        ["ZREM", "rq:scheduled:default", "other--1"],
        ["XADD", keys.results("default--1"), "*", "type", "1"],
        ["HSET", keys.values("default--1"), "a", "{}"],
        ["HSET", keys.stages("default--1"), "a", "{}"],
        ["PUBLISH", keys.commands("w"), '{"command": "shutdown"}'],
        ["SUBSCRIBE", keys.commands("w")],
        ["EVAL", "return 1", "0"],
        ["SCRIPT", "FLUSH"],
        ["FUNCTION", "LIST"],
        ["KEYS", "*"],
        ["SCAN", "0"],
        ["RANDOMKEY"],
        ["FLUSHALL"],
        ["CONFIG", "GET", "*"],
        ["CLIENT", "LIST"],
        ["MONITOR"],
        ["ACL", "LIST"],
        ["INFO"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_producer_takes_nothing_off_a_queue_and_commands_nobody(connection: Redis, command: list[str]) -> None:
    """What waits there is others' too; results and values are what workers write."""
    with pytest.raises(NoPermissionError):
        connection.execute_command(*command)


def test_a_producer_cannot_run_in_the_name_of_another_namespace(queue: Valkey, fleet: Fleet, connection: Redis) -> None:
    """A message may say anything; a worker runs it only if the run's id, which Redis guards, says the same."""
    fleet.start("w")
    where = {"folder": str(fleet.folder)}
    args = prepare(fleet.settings, fleet.workflow({"name": "mark"}), where, namespace="other").args[6:]
    connection.hset(keys.job("default--evil"), mapping=dict(zip(args[::2], args[1::2], strict=True)))
    connection.rpush("rq:queue:default", "default--evil")
    with pytest.raises(RunFailed, match="is of namespace 'other', and its id of 'default'"):
        fleet.client.get("default--evil").result(timeout=30)
    assert fleet.marks() == []


def test_the_dashboard_shows_all_and_requeues(queue: Valkey, fleet: Fleet) -> None:
    """An unpatched rq-dashboard works with its user, which may read and write nothing but what is RQ's."""
    fleet.start("w")
    bad = fleet.submit({"name": "fails"})
    bad.wait(timeout=30)
    fleet.submit({"name": "echo"}, queue="nobodys")
    with Dashboard(queue.url_of("dashboard:dashboard-secret"), fleet.folder / "dashboard.log") as dashboard:
        pages = ["/", "/0/view/jobs", f"/0/view/job/{bad.id}", f"/0/data/job/{bad.id}.json"]
        pages += [f"/0/data/{what}.json" for what in ("queues", "workers")]
        kinds = ("queued", "started", "finished", "failed", "scheduled", "canceled", "deferred")
        pages += [f"/0/data/jobs/default/{kind}/8/asc/1.json" for kind in kinds]
        for page in pages:
            assert urllib.request.urlopen(dashboard.url + page, timeout=10).status == 200
        requeue = urllib.request.Request(f"{dashboard.url}/job/{bad.id}/requeue", method="POST")
        assert urllib.request.urlopen(requeue, timeout=10).status == 200
    until(lambda: bad.record.attempt == 2 and bad.state == "failed")
    with Redis(port=queue.port, username="dashboard", password="dashboard-secret") as own:
        for command in (own.flushall, lambda: own.delete(keys.job(bad.id)), lambda: own.smembers(keys.NAMESPACES)):
            with pytest.raises(NoPermissionError):
                command()


def test_the_dashboard_cannot_requeue_a_run_with_limits(queue: Valkey, fleet: Fleet) -> None:
    """RQ does that with a script, which its user may not call: it is told so, and the run stays as it ended."""
    fleet.start("w")
    run = fleet.submit({"name": "fails"}, concurrency={"customer": 1})
    run.wait(timeout=30)
    with Redis(port=queue.port, username="dashboard", password="dashboard-secret") as own:
        job = Job.fetch(run.id, connection=own, serializer=JSONSerializer)
        with pytest.raises(NoPermissionError):
            job.requeue()
    assert run.state == "failed"
    run.retry()
    until(lambda: run.record.attempt == 2 and run.state == "failed")


def _by_script(connection: Redis, command: list[str]) -> Any:
    sha = connection.script_load(f"return redis.call({', '.join(map(repr, command))})")
    return connection.evalsha(sha, 0)

"""Sentinels name the master; when it changes, all that talks to it follows, and what is in hand stays in hand."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis, RedisError

import flowtilla
from fleet import Fleet, until
from flowtilla import keys
from flowtilla.connection import connect, connect_async
from flowtilla.errors import QueueUnavailable
from flowtilla.redis_settings import RedisSettings
from flowtilla.settings import Settings
from valkeys import SERVICE, Door, Valkey, Watched, watched

#: Seconds in which everything has followed once there is a new master.
SOON = 10.0

PASSWORD, OWN = "the-servers-password", "the-sentinels-password"


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Servers and Sentinels that ask for passwords, for tests that leave both servers running."""
    with watched(tmp_path_factory.mktemp("watched"), password=PASSWORD, own=OWN) as started:
        yield started


def _configured(queue: Watched, **sentinel: Any) -> dict[str, Any]:
    return {"url": f"redis://:{PASSWORD}@/0", "sentinel": queue.settings["sentinel"] | {"password": OWN} | sentinel}


def _settings(queue: Watched, **sentinel: Any) -> RedisSettings:
    return RedisSettings.model_validate(_configured(queue, **sentinel))


def _follows(server: Redis) -> bool:
    with suppress(RedisError):
        return bool(server.info("replication")["role"] == "slave")
    return False


def _listens(server: Redis, worker: str) -> bool:
    return bool(server.pubsub_numsub(keys.commands(worker))[0][1])


def test_a_blocking_client_follows_the_master(queue: Watched) -> None:
    """The connection it has is to a replica once the master has changed; it writes to the new one within seconds."""
    with connect(_settings(queue)) as client:
        client.set("before", 1)
        queue.fail_over()
        began = time.monotonic()
        until(lambda: _does(lambda: client.set("after", 2)), SOON)
        assert time.monotonic() - began < SOON
        assert queue.master.client.mget("before", "after") == [b"1", b"2"]


def test_an_asyncio_client_follows_the_master(queue: Watched) -> None:
    """As the blocking one does; and it leaves no connection to a Sentinel open."""

    async def follow() -> None:
        async with connect_async(_settings(queue)) as client:
            await client.set("before", 1)
            await asyncio.to_thread(queue.fail_over)
            async with asyncio.timeout(SOON):
                while True:
                    try:
                        await client.set("after", 3)
                        return
                    except RedisError:
                        await asyncio.sleep(0.05)

    before = [_asking(sentinel.client) for sentinel in queue.sentinels]
    asyncio.run(follow())
    assert queue.master.client.get("after") == b"3"
    until(lambda: [_asking(sentinel.client) for sentinel in queue.sentinels] == before)


@pytest.mark.alarm(240)
@pytest.mark.parametrize("how", ["dies", "freezes"])
def test_a_worker_goes_on_without_its_master(tmp_path: Path, how: str) -> None:
    """With the default lease a run in hand ends in the attempt it is in; new runs, and commands, are heard of.

    A master that dies hangs up; one that freezes, or is cut off, says nothing, and comes back as somebody's replica.
    """
    with watched(tmp_path / "servers") as queue, Fleet(queue.settings, tmp_path) as fleet:
        fleet.start("w", lease="10s", heartbeat="3s")
        run = fleet.submit({"name": "mark"}, {"name": "gate", "depends_on": ["mark"]})
        fleet.begun()
        until(lambda: run.stages.get("mark") is not None and run.stages["mark"].state == "finished")
        gone = queue.master
        # What the replica has not got by now would be lost with the master, which nobody promises.
        gone.client.wait(1, 5000)

        with gone.stopped() if how == "dies" else gone.frozen():
            until(lambda: queue.master is not gone, seconds=60)
            fleet.open_gate()
            assert _answer(run, 30) == str(tmp_path)
            assert run.record.attempt == 1
            assert len(fleet.marks()) == 1
            assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1
            if how == "dies":
                until(lambda: _listens(queue.master.client, "w"), SOON)
        until(lambda: _follows(gone.client), seconds=60)
        until(lambda: _listens(queue.master.client, "w"), SOON)
        assert fleet.submit({"name": "echo"}, input={"x": 2}).result(timeout=30) == 2


@pytest.mark.alarm(240)
def test_a_worker_leaves_a_master_that_became_a_replica(tmp_path: Path) -> None:
    """No Sentinel: a name leads to another server from now on, and the one before answers on, as its replica."""
    with Valkey(tmp_path / "one") as one, Valkey(tmp_path / "two", "--replicaof", f"127.0.0.1 {one.port}") as two:
        until(lambda: two.client.info("replication")["master_link_status"] == "up")
        with Door(one.port) as name, Fleet(f"redis://127.0.0.1:{name.port}/0", tmp_path) as fleet:
            fleet.start("w", lease="10s", heartbeat="3s")
            run = fleet.submit({"name": "gate"})
            fleet.begun()
            one.client.wait(1, 5000)

            two.client.replicaof("NO", "ONE")
            name.behind = two.port
            one.client.replicaof("127.0.0.1", str(two.port))
            fleet.open_gate()
            assert _answer(run, 30) == str(tmp_path)
            assert run.record.attempt == 1
            # Idle, it has only claims to notice by.
            assert _does_soon(lambda: fleet.submit({"name": "echo"}, input={"x": 1})).result(timeout=30) == 1
            until(lambda: not _writes(one.client, "w"), SOON)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"service": "other"}, "knows a master 'other' that is up"),
        ({"password": "wrong-secret"}, "AuthenticationError"),
        ({"nodes": ["127.0.0.1:1", "127.0.0.1:2"]}, "none of the Sentinels 127.0.0.1:1, 127.0.0.1:2"),
    ],
)
def test_sentinels_that_do_not_help_are_told_of(queue: Watched, wrong: dict[str, Any], said: str) -> None:
    """Within seconds the error names them, what they were asked for, and no password."""
    client = flowtilla.Client(settings=Settings(redis=_settings(queue, **wrong)))
    with client, pytest.raises(QueueUnavailable) as caught:
        client.workers()
    assert said in str(caught.value)
    told = repr(caught.value) + repr(client.settings) + str(caught.value.__cause__)
    assert not [secret for secret in (PASSWORD, OWN, "wrong-secret") if secret in told]


def test_one_sentinel_that_answers_is_enough_to_find_the_master(queue: Watched) -> None:
    """Those that are away are passed over."""
    alive = f"127.0.0.1:{queue.sentinels[1].port}"
    with connect(_settings(queue, nodes=["127.0.0.1:1", "localhost:2", alive])) as client:
        assert client.ping()
    assert queue.settings["sentinel"]["service"] == SERVICE


def _asking(sentinel: Redis) -> list[str]:
    """Returns who is connected to a Sentinel, other Sentinels apart: they come and go as they hear of each other."""
    return [client["addr"] for client in sentinel.client_list() if not client["name"].startswith("sentinel-")]


def _does(command: Any) -> bool:
    try:
        command()
    except RedisError:
        return False
    return True


def _does_soon(command: Any) -> Any:
    """Does it once Redis lets it, and returns its answer."""
    deadline = time.monotonic() + SOON
    while True:
        try:
            return command()
        except QueueUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _answer(run: flowtilla.Run, seconds: float) -> Any:
    return _does_soon(lambda: run.result(timeout=seconds))


def _writes(server: Redis, worker: str) -> bool:
    """Returns whether a server that is a replica has clients that are about to write: any but us and its master."""
    return any(client["cmd"].startswith(("evalsha", "hset")) for client in server.client_list())

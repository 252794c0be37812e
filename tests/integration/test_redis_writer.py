"""What a worker asks of Redis, while it is away and while it refuses: in order, and one does not wait for another."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import RedisError

from flowtilla.redis_settings import RedisSettings
from flowtilla.scripts import Script
from flowtilla_worker import scripts
from flowtilla_worker.connections import Connections
from flowtilla_worker.writer import Writer
from valkeys import Valkey

#: Each is a step that leaves a trace; the second needs no memory, which a full Redis takes.
PUSH, POP = Script("return redis.call('RPUSH', KEYS[1], ARGV[1])"), Script("return redis.call('LPOP', KEYS[1])")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server that all tests leave running and empty of limits."""
    with Valkey(tmp_path_factory.mktemp("writer")) as started:
        yield started


@pytest.fixture
def queue(server: Valkey, monkeypatch: pytest.MonkeyPatch) -> Valkey:
    """The server, emptied; the writer knows our scripts beside its own."""
    monkeypatch.setattr(scripts, "ALL", (*scripts.ALL, PUSH, POP))
    server.client.flushall()
    return server


@asynccontextmanager
async def writing(queue: Valkey) -> AsyncIterator[Writer]:
    redis = Connections(RedisSettings.model_validate({"url": queue.url})).asyncio(patience=5.0)
    writer = Writer(redis)
    try:
        yield writer
    finally:
        await asyncio.wait_for(writer.close(), 30)
        await redis.aclose()


def with_writer(queue: Valkey, use: Callable[[Writer], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), writing(queue) as writer:
            await use(writer)

    asyncio.run(run())


def test_what_waits_for_redis_is_written_in_its_order(queue: Valkey) -> None:
    """Asked before it went, while it was away, and after: each once, none before another."""

    async def use(writer: Writer) -> None:
        calls = [asyncio.create_task(writer.call(PUSH, ["said"], ["0"]))]
        await calls[0]
        with queue.stopped():
            for number in range(1, 5):
                calls.append(asyncio.create_task(writer.call(PUSH, ["said"], [str(number)])))
                await asyncio.sleep(0.05)
            assert not any(call.done() for call in calls[1:])
        calls.append(asyncio.create_task(writer.call(PUSH, ["said"], ["5"])))
        assert await asyncio.gather(*calls) == [1, 2, 3, 4, 5, 6]

    with_writer(queue, use)
    assert queue.client.lrange("said", 0, -1) == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_a_claim_that_nobody_waits_for_is_not_made(queue: Valkey) -> None:
    """A worker was stopped while Redis was away: what it would have claimed then would be in nobody's hand."""

    async def use(writer: Writer) -> None:
        with queue.stopped():
            claim = asyncio.create_task(writer.call(PUSH, ["claimed"], ["x"], patient=False))
            write = asyncio.create_task(writer.call(PUSH, ["written"], ["x"]))
            await asyncio.sleep(0.5)
            for call in (claim, write):
                call.cancel()
        assert await writer.call(PUSH, ["after"], ["x"]) == 1

    with_writer(queue, use)
    assert not queue.client.exists("claimed")
    # What a stage returned is written all the same.
    assert queue.client.lrange("written", 0, -1) == [b"x"]


def test_a_refusal_holds_up_only_what_waits_for_its_end(queue: Valkey) -> None:
    """With full memory: what needs none goes through, a claim hears of it at once, and a write waits until it may."""
    queue.client.rpush("there", "first", "second")

    async def use(writer: Writer) -> None:
        await writer.call(POP, ["none"], [])
        queue.client.config_set("maxmemory", 1)
        try:
            write = asyncio.create_task(writer.call(PUSH, ["written"], ["x"]))
            with pytest.raises(RedisError, match="maxmemory"):
                await writer.call(PUSH, ["claimed"], ["x"], patient=False)
            assert await writer.call(POP, ["there"], []) == b"first"
            assert await writer.call(POP, ["there"], []) == b"second"
            assert not write.done()
        finally:
            queue.client.config_set("maxmemory", 0)
        assert await write == 1

    with_writer(queue, use)


def test_a_script_of_its_own_that_is_wrong_is_told_at_once(queue: Valkey) -> None:
    """What can never succeed is not tried again."""
    queue.client.set("said", "a string")

    async def use(writer: Writer) -> None:
        with pytest.raises(RedisError, match="WRONGTYPE"):
            await writer.call(PUSH, ["said"], ["x"])

    with_writer(queue, use)

"""A worker hears of new runs and of commands, whatever is sent to it and however a connection dies."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from redis import Redis
from rq.command import send_shutdown_command, send_stop_job_command
from rq.serializers import JSONSerializer

from fleet import Fleet, until
from flowtilla.redis_settings import RedisSettings
from flowtilla.settings import Settings
from flowtilla_worker import claims
from flowtilla_worker.claims import Claims
from flowtilla_worker.connections import Connections
from flowtilla_worker.writer import Writer


class Wire:
    """A way to a server that can be cut such that neither end is told: what is sent is swallowed.

    Args:
        port: the server's.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._cut: set[asyncio.StreamWriter] = set()
        self.open: set[asyncio.StreamWriter] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self.open.add(writer)
        with suppress(asyncio.CancelledError):
            await asyncio.gather(self._pump(reader, back, writer), self._pump(there, writer, writer))
        self.open.discard(writer)
        writer.close()
        back.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, line: Any) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                if line not in self._cut:
                    sink.write(data)
        if line not in self._cut:
            sink.close()

    def cut(self) -> None:
        """Cuts the connections that there are; later ones work."""
        self._cut |= self.open


@asynccontextmanager
async def wire(redis: Redis) -> AsyncIterator[tuple[Wire, str]]:
    way = Wire(redis.connection_pool.connection_kwargs["port"])
    server = await asyncio.start_server(way.connected, "127.0.0.1", 0)
    async with server:
        yield way, f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


async def soon(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def pings(redis: Redis) -> int:
    return int(redis.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"])


def test_a_connection_that_is_cut_silently_is_made_anew(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """No end is told, so nothing would be heard again: silence is asked about, and no answer is a lost connection."""
    monkeypatch.setattr(claims, "_SILENCE", 0.3)
    woken: list[int] = []
    commands: list[dict[str, Any]] = []

    async def listen() -> None:
        async with wire(redis) as (way, url):
            settings = RedisSettings.model_validate({"url": url})
            connection = Connections(settings).asyncio()
            writer = Writer(connection)
            listening = asyncio.create_task(
                Claims(writer, "w", Settings()).listen(connection, lambda: woken.append(1), commands.append)
            )
            await soon(lambda: redis.pubsub_numsub("rq:pubsub:w")[0][1] == 1 and woken)
            # Quiet for long, it asks now and then, and goes on listening on the same connection.
            quiet, asked = set(way.open), pings(redis)
            await soon(lambda: pings(redis) >= asked + 3)
            assert way.open == quiet
            redis.publish("rq:pubsub:w", "first")
            await soon(lambda: len(commands) == 1)

            way.cut()
            await soon(lambda: redis.pubsub_numsub("rq:pubsub:w")[0][1] == 2)
            redis.publish("rq:pubsub:w", "second")
            await soon(lambda: len(commands) == 2)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await writer.close()
            await connection.aclose()

    asyncio.run(listen())
    assert [one["data"] for one in commands] == [b"first", b"second"]
    assert len(woken) == 2


#: What no command may be.
RUBBISH = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'"stop-job"',
    b"9" * 5000,
    b"[" * 100_000,
    b'{"command":' * 50_000,
    b'{"command": "stop-job", "job_id": ' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"command": {"stop-job": 1}, "job_id": []}',
    b'{"command": "stop-job", "job_id": "../../x\\u0000"}',
    b'{"command": "stop-job", "job_id": "no such run"}',
    b'{"command": "kill-horse"}',
    b" " * 10_000_000,
]


def test_nothing_that_is_published_ends_the_listening(fleet: Fleet, redis: Redis) -> None:
    """After all of it, commands are still obeyed and new runs still heard of at once."""
    fleet.start("w", queues='["default", "urgent"]')
    run = fleet.submit({"name": "gate"})
    fleet.begun()

    for payload in RUBBISH:
        redis.publish("rq:pubsub:w", payload)
        redis.publish("flowtilla:wake:default", payload)

    send_stop_job_command(redis, run.id, serializer=JSONSerializer)
    assert run.wait(timeout=30) == "cancelled"
    assert fleet.submit({"name": "echo"}, input={"x": 1}, queue="urgent").result(timeout=30) == 1
    assert "a background task of the worker broke" not in fleet.said("w")
    send_shutdown_command(redis, "w")
    assert fleet.ended("w") == 0


def test_a_command_of_rq_is_not_passed_on_for_ever(fleet: Fleet, redis: Redis) -> None:
    """Noting a stop command tells the worker of it once more, and no more."""
    fleet.start("w")
    run = fleet.submit({"name": "gate"})
    fleet.begun()
    until(lambda: redis.pubsub_numsub("rq:pubsub:w")[0][1])
    with redis.pubsub() as overheard:
        overheard.subscribe("rq:pubsub:w")
        send_stop_job_command(redis, run.id, serializer=JSONSerializer)
        assert run.wait(timeout=30) == "cancelled"
        send_shutdown_command(redis, "w")
        assert fleet.ended("w") == 0
        heard = []
        while (message := overheard.get_message(timeout=1)) is not None:
            heard += [message["data"]] if message["type"] == "message" else []
    assert 2 <= len(heard) <= 3

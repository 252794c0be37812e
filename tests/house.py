"""One worker's housekeeping, without the worker; and keys that are not what they should be."""

import asyncio

from redis import Redis

from flowtilla.settings import Settings
from flowtilla_worker.connections import Connections
from flowtilla_worker.housekeeping import Housekeeping
from flowtilla_worker.writer import Writer

#: Every type that a key of ours or of RQ may wrongly have.
KINDS = ("string", "list", "set", "zset", "hash", "stream")


def housekeep(settings: Settings, what: str) -> None:
    """Does one round of a worker's housekeeping: `look` or `sweep`."""

    async def once() -> None:
        redis = Connections(settings.redis).asyncio()
        writer = Writer(redis)
        house = Housekeeping(writer, redis, settings)
        try:
            await (house.sweep() if what == "sweep" else house.look())
        finally:
            await writer.close()
            await redis.aclose()

    asyncio.run(once())


def put(redis: Redis, key: str, kind: str) -> None:
    """Puts a key of a kind, with bytes that are no text, where something else belongs."""
    redis.delete(key)
    match kind:
        case "string":
            redis.set(key, b"\xff")
        case "list":
            redis.rpush(key, b"\xff")
        case "set":
            redis.sadd(key, b"\xff")
        case "zset":
            redis.zadd(key, {b"\xff": 1, b"\xff:\xff": 1})
        case "hash":
            redis.hset(key, b"\xff", b"\xff")
        case _:
            redis.xadd(key, {b"\xff": b"\xff"})

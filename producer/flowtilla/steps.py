"""Conversations with Redis written once, for clients that block and clients that await.

A conversation is a generator. It yields steps and is sent each step's reply; a step takes the connection and talks to
Redis. `drive` runs it over a blocking connection, `adrive` over an asyncio one.
"""

import asyncio
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.exceptions import NoScriptError, RedisError

from flowtilla.errors import QueueUnavailable
from flowtilla.scripts import Script

T = TypeVar("T")

#: Talks to Redis; returns the reply, or an awaitable of it when the connection is an asyncio one.
Step = Callable[[Any], Any]


@dataclass(frozen=True)
class Blocking:
    """A step that needs no Redis and may block: reading storage."""

    do: Callable[[], Any]


#: A conversation that ends with a T.
Steps = Generator[Step | Blocking, Any, T]


def drive(steps: Steps[T], redis: Any) -> T:
    """Runs a conversation over a blocking connection.

    Raises:
        QueueUnavailable: Redis cannot be reached or refuses.
    """
    try:
        step = next(steps)
        while True:
            try:
                reply = step.do() if isinstance(step, Blocking) else step(redis)
            except RedisError as error:
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except RedisError as error:
        raise unavailable(redis, error) from error


async def adrive(steps: Steps[T], redis: Any) -> T:
    """Runs a conversation over an asyncio connection.

    Raises:
        QueueUnavailable: Redis cannot be reached or refuses.
    """
    try:
        step = next(steps)
        while True:
            try:
                reply = await (asyncio.to_thread(step.do) if isinstance(step, Blocking) else step(redis))
            except RedisError as error:
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except RedisError as error:
        raise unavailable(redis, error) from error


def call(script: Script, keys: Sequence[str], args: Sequence[Any]) -> Steps[Any]:
    """Calls a script, and teaches it to a Redis that does not know it yet."""
    try:
        return (yield lambda redis: redis.evalsha(script.sha, len(keys), *keys, *args))
    except NoScriptError:
        return (yield lambda redis: redis.eval(script.text, len(keys), *keys, *args))


def pipeline(*commands: Callable[[Any], Any]) -> Steps[list[Any]]:
    """Sends several commands in one round trip and returns their replies."""

    def step(redis: Any) -> Any:
        pipe = redis.pipeline(transaction=False)
        for command in commands:
            command(pipe)
        return pipe.execute()

    replies: list[Any] = yield step
    return replies


def unavailable(redis: Any, error: Exception) -> QueueUnavailable:
    """Returns the error that says which Redis failed, and how; never with its password."""
    options = redis.connection_pool.connection_kwargs
    where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return QueueUnavailable(
        f"Redis at {where} (database {options.get('db', 0)}) did not do as asked: {type(error).__name__}: "
        f"{str(error).rstrip('.')}. "
        "Is it running, and is redis.url right?"
    )

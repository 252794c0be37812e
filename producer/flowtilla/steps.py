"""Conversations with Redis written once, for clients that block and clients that await.

A conversation is a generator. It yields steps and is sent each step's reply; a step takes the connection and talks to
Redis. `drive` runs it over a blocking connection, `adrive` over an asyncio one.
"""

import asyncio
import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from redis.exceptions import NoScriptError, RedisError

from flowtilla.connection import where
from flowtilla.errors import QueueUnavailable
from flowtilla.refusals import advice, passes, told
from flowtilla.scripts import Script

T = TypeVar("T")

#: Seconds of an outage of Redis that who waits for a run waits through, and those from one try to the next at most.
OUTAGE, _AGAIN = 60.0, 1.0

#: Talks to Redis; returns the reply, or an awaitable of it when the connection is an asyncio one.
Step = Callable[[Any], Any]


@dataclass(frozen=True)
class Blocking:
    """A step that needs no Redis and may block: reading storage."""

    do: Callable[[], Any]


@dataclass(frozen=True)
class Pause:
    """A step that lets some seconds pass."""

    seconds: float


#: A conversation that ends with a T.
Steps = Generator[Step | Blocking | Pause, Any, T]


def drive(steps: Steps[T], redis: Any) -> T:
    """Runs a conversation over a blocking connection.

    Raises:
        QueueUnavailable: Redis cannot be reached or refuses.
    """
    try:
        step = next(steps)
        while True:
            try:
                reply = _take(step, redis)
            except RedisError as error:
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except RedisError as error:
        raise unavailable(redis, error) from _without_frames(error)


async def adrive(steps: Steps[T], redis: Any) -> T:
    """Runs a conversation over an asyncio connection.

    Raises:
        QueueUnavailable: Redis cannot be reached or refuses.
    """
    try:
        step = next(steps)
        while True:
            try:
                reply = await _atake(step, redis)
            except RedisError as error:
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except RedisError as error:
        raise unavailable(redis, error) from _without_frames(error)


def _take(step: Step | Blocking | Pause, redis: Any) -> Any:
    match step:
        case Blocking():
            return step.do()
        case Pause():
            return time.sleep(step.seconds)
    return step(redis)


def _atake(step: Step | Blocking | Pause, redis: Any) -> Any:
    match step:
        case Blocking():
            return asyncio.to_thread(step.do)
        case Pause():
            return asyncio.sleep(step.seconds)
    return step(redis)


def bridged(ask: Callable[[], Steps[T]], deadline: float | None) -> Steps[T]:
    """Asks until Redis answers, while an outage of it lasts no longer than `OUTAGE`.

    Args:
        ask: begins the conversation, which may be begun again.
        deadline: until when at most, on the monotonic clock; None as long as that.
    """
    over, delay = math.inf if deadline is None else deadline, 0.1
    while True:
        try:
            return (yield from ask())
        except RedisError as error:
            over = min(over, time.monotonic() + OUTAGE)
            left = over - time.monotonic()
            if left <= 0 or not passes(error):
                raise
        yield Pause(min(delay, left))
        delay = min(delay * 2, _AGAIN)


def call(script: Script, keys: Sequence[str], args: Sequence[Any]) -> Steps[Any]:
    """Calls a script, and teaches it to a Redis that does not know it yet."""
    try:
        return (yield lambda redis: redis.evalsha(script.sha, len(keys), *keys, *args))
    except NoScriptError:
        return (yield lambda redis: redis.eval(script.text, len(keys), *keys, *args))


def pipeline(*commands: Callable[[Any], Any]) -> Steps[list[Any]]:
    """Sends several commands in one round trip and returns their replies."""
    replies: list[Any] = yield _together(commands, raise_on_error=True)
    return replies


def hashes(names: Sequence[str]) -> Steps[list[dict[bytes, bytes]]]:
    """Reads hashes in one round trip; a key that holds something else counts as empty, for others must be read too."""
    replies = yield _together([partial(_hash, name) for name in names], raise_on_error=False)
    for reply in replies:
        if isinstance(reply, RedisError) and not str(reply).startswith("WRONGTYPE"):
            raise reply
    return [{} if isinstance(reply, RedisError) else reply for reply in replies]


def _hash(name: str, redis: Any) -> Any:
    return redis.hgetall(name)


def _together(commands: Sequence[Callable[[Any], Any]], raise_on_error: bool) -> Step:
    def step(redis: Any) -> Any:
        pipe = redis.pipeline(transaction=False)
        for command in commands:
            command(pipe)
        return pipe.execute(raise_on_error=raise_on_error)

    return step


def unavailable(redis: Any, error: Exception) -> QueueUnavailable:
    """Returns the error that says which Redis failed, and how; never with its password."""
    advised = advice(error) or "is it running, and is redis.url right, redis:// or rediss:// too?"
    return QueueUnavailable(
        f"Redis at {where(redis)} did not do as asked: {told(error)}. {advised[0].upper()}{advised[1:]}"
    )


def _without_frames(error: BaseException) -> BaseException:
    """Returns the error without its frames: tools that show their variables would show the password that was sent."""
    one: BaseException | None = error
    while one is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
    return error

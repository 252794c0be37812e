"""What is done about an error in something that must go on for ever."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

from redis.exceptions import ConnectionError, RedisError, TimeoutError

from flowtilla.errors import FlowtillaError
from flowtilla.refusals import advice, told

_log = logging.getLogger("flowtilla.worker")

T = TypeVar("T")


def complain(what: str, error: Exception) -> None:
    """Says that something failed which goes on all the same; and where, if it is a fault of ours."""
    ours = not isinstance(error, (RedisError, OSError, FlowtillaError))
    said = ": ".join(filter(None, (told(error), advice(error))))
    _log.warning("%s failed, it is tried again: %s", what, said, exc_info=error if ours else None)


async def tried(work: Awaitable[T], what: str) -> T | None:
    """Waits for one piece of work among others, which must not fail with it; returns None when it failed.

    Args:
        work: what to wait for.
        what: what it does, for the log.

    Raises:
        redis.exceptions.ConnectionError: Redis is away, and so it is for the others.
    """
    try:
        return await work
    except (ConnectionError, TimeoutError):
        raise
    except Exception as error:
        complain(what, error)
        return None


async def for_ever(work: Callable[[], Awaitable[None]], what: str, every: float) -> NoReturn:
    """Does something again and again, whatever it raises.

    Args:
        work: does it once.
        what: what it does, for the log.
        every: seconds between two times, about: workers that were started together do not stay together.
    """
    while True:
        try:
            await work()
        except Exception as error:
            complain(what, error)
        await asyncio.sleep(every * random.uniform(0.8, 1.2))

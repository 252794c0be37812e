"""Sends scripts to Redis: what is asked in one moment travels in one round trip, and an outage is waited out."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
)

from flowtilla.scripts import Script
from flowtilla_worker import scripts

_log = logging.getLogger("flowtilla.worker")

#: Errors that say "not now": the same commands are sent again. Every script is safe to send twice.
_PASSING = (ConnectionError, TimeoutError, BusyLoadingError, NoScriptError, OutOfMemoryError, ReadOnlyError, OSError)

#: Seconds between tries while Redis is away: the first and the longest.
_BACKOFF = (0.1, 5.0)

#: How many commands one round trip carries at most.
_BATCH = 512


@dataclass(slots=True)
class _Request:
    script: Script
    keys: Sequence[str]
    args: Sequence[Any]
    reply: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Writer:
    """Calls scripts over one asyncio connection.

    Args:
        redis: the connection; not closed here.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._waiting: list[_Request] = []
        self._wake, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._loop_task = asyncio.create_task(self._serve(), name="flowtilla-writer")
        self._known = False

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Calls a script and returns its reply, however long Redis is away.

        Raises:
            redis.exceptions.ResponseError: Redis refused the script itself.
        """
        request = _Request(script, keys, args)
        self._waiting.append(request)
        self._idle.clear()
        self._wake.set()
        return await request.reply

    async def close(self) -> None:
        """Sends what waits, however long Redis is away, and stops; cancelled, it stops without."""
        try:
            await self._idle.wait()
        finally:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            batch = self._waiting[:_BATCH]
            await self._send(batch)
            # Only now do they leave the list: `close` waits for what is in it.
            del self._waiting[: len(batch)]
            if not self._waiting:
                self._wake.clear()
                self._idle.set()

    async def _send(self, batch: list[_Request]) -> None:
        delay, longest = _BACKOFF
        while batch:
            try:
                replies = await self._try(batch)
            except _PASSING as error:
                replies = [error] * len(batch)
            again = []
            for request, reply in zip(batch, replies, strict=True):
                if isinstance(reply, _PASSING):
                    again.append(request)
                elif not request.reply.done():
                    _settle(request.reply, reply)
            if again:
                why = next(reply for reply in replies if isinstance(reply, _PASSING))
                _log.warning("Redis is away (%s: %s); trying again in %.1f s", type(why).__name__, why, delay)
                self._known = False
                await asyncio.sleep(delay)
                delay = min(delay * 2, longest)
            batch = again

    async def _try(self, batch: list[_Request]) -> list[Any]:
        if not self._known:
            for script in scripts.ALL:
                await self._redis.script_load(script.text)
            self._known = True
        pipe = self._redis.pipeline(transaction=False)
        for request in batch:
            pipe.evalsha(request.script.sha, len(request.keys), *request.keys, *request.args)
        replies: list[Any] = await pipe.execute(raise_on_error=False)
        return replies


def _settle(waiting: asyncio.Future[Any], reply: Any) -> None:
    if isinstance(reply, ResponseError):
        waiting.set_exception(reply)
    else:
        waiting.set_result(reply)

"""Sends scripts to Redis: what is asked in one moment travels in one round trip, and an outage is waited out."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import ConnectionError, NoScriptError, ReadOnlyError, RedisError, ResponseError, TimeoutError

from flowtilla.refusals import advice, told
from flowtilla.scripts import Script
from flowtilla_worker import scripts

_log = logging.getLogger("flowtilla.worker")

#: Replies that say "not now": the same commands are sent again. Every script is safe to send twice.
_AWAY = (ConnectionError, TimeoutError, NoScriptError, OSError)

#: Seconds between tries while Redis is away: the first and the longest.
_BACKOFF = (0.1, 5.0)

#: How many commands one round trip carries at most.
_BATCH = 512


@dataclass(slots=True)
class _Request:
    script: Script
    keys: Sequence[str]
    args: Sequence[Any]
    patient: bool
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

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Any], patient: bool = True) -> Any:
        """Calls a script and returns its reply, however long Redis is away.

        Args:
            script, keys, args: what is called.
            patient: whether to wait too while Redis refuses everybody, because its memory is full for example. A call
                that is not is not made any more either, once nobody waits for its reply.

        Raises:
            redis.exceptions.ResponseError: Redis refused.
        """
        request = _Request(script, keys, args, patient)
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
        delay, longest = _BACKOFF
        while True:
            await self._wake.wait()
            batch = self._waiting[:_BATCH]
            again, why = await self._send(batch)
            # Only now do they leave the list: `close` waits for what is in it. What is sent again stays in its order,
            # and in front; what came meanwhile goes with it, for Redis may refuse one and take another.
            self._waiting[: len(batch)] = again
            if why is None:
                delay = _BACKOFF[0]
            else:
                _log.warning("Redis %s; trying again in %.1f s", _described(why), delay)
                self._known = False
                await asyncio.sleep(delay)
                delay = min(delay * 2, longest)
            if not self._waiting:
                self._wake.clear()
                self._idle.set()

    async def _send(self, batch: list[_Request]) -> tuple[list[_Request], Exception | None]:
        """Sends requests and settles those that Redis took; returns those to send again, and why."""
        batch = [request for request in batch if request.patient or not request.reply.done()]
        try:
            replies = await self._try(batch)
        except (RedisError, OSError) as error:
            return batch, error
        again, why = [], None
        for request, reply in zip(batch, replies, strict=True):
            if isinstance(reply, _AWAY) or (request.patient and isinstance(reply, RedisError) and advice(reply)):
                again.append(request)
                why = reply
            elif not request.reply.done():
                _settle(request.reply, reply)
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            # It was the master. Whoever is now is found by connecting anew.
            await self._redis.connection_pool.disconnect(inuse_connections=False)
        return again, why

    async def _try(self, batch: list[_Request]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        # With the calls, and not before them: somebody may be flushing the scripts again and again.
        teaching = () if self._known else scripts.ALL
        for script in teaching:
            pipe.script_load(script.text)
        for request in batch:
            pipe.evalsha(request.script.sha, len(request.keys), *request.keys, *request.args)
        replies: list[Any] = await pipe.execute(raise_on_error=False)
        taught, replies = replies[: len(teaching)], replies[len(teaching) :]
        if refused := next((one for one in taught if isinstance(one, Exception)), None):
            raise refused
        self._known = True
        return replies


def _described(why: Exception) -> str:
    advised = advice(why)
    return f"refuses ({told(why)}): {advised}" if advised else f"is away ({told(why)})"


def _settle(waiting: asyncio.Future[Any], reply: Any) -> None:
    if isinstance(reply, ResponseError):
        waiting.set_exception(reply)
    else:
        waiting.set_result(reply)

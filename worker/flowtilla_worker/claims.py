"""Takes runs off their queues, and hears of new ones."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

from rq.utils import utcformat

from flowtilla import keys
from flowtilla.settings import Settings
from flowtilla.workers import Order
from flowtilla_worker.attempt import FIELDS, Claim
from flowtilla_worker.engine.poison import MAX_CLUSTER_STRIKES, MAX_STRIKES
from flowtilla_worker.scripts import CLAIM
from flowtilla_worker.trouble import complain
from flowtilla_worker.writer import Writer

#: Seconds between tries to listen again.
_RECONNECT = 1.0

#: Seconds of silence after which Redis is asked whether it is there, and then until it counts as away.
_SILENCE = 5.0


#: Bytes that the fields of a job may have besides its message, which is compressed and so hardly larger than it may be.
_BESIDE = 1024**2


class Claims:
    """Claims runs for one worker, from several queues in order of priority.

    Args:
        writer: calls the script.
        worker: the worker's name.
        settings: the worker's queues and lease, weights of namespaces, how large a message may be.
    """

    def __init__(self, writer: Writer, worker: str, settings: Settings) -> None:
        self._writer = writer
        #: What the worker is told at the moment, as of its last claim.
        self.told: Order | None = None
        queues = settings.services.worker.queues
        whose = (keys.LEASES, keys.SUSPENDED, keys.DAMAGED, keys.claim(worker), keys.order(worker))
        self._keys = (*whose, *map(keys.queue, queues), *map(keys.suspended, queues))
        self._channels = [keys.wake(name) for name in queues]
        self._commands = keys.commands(worker)
        self._worker = worker
        self._lease = settings.services.worker.lease
        self._weights = json.dumps(settings.limits.weights)
        self._most = 2 * settings.max_message + _BESIDE

    async def take(self, count: int, idle: bool) -> list[Claim]:
        """Claims runs, and hears what the worker is told: while that is something, there are no new ones.

        Args:
            count: how many at most; with 0 the worker only hears what it is told.
            idle: whether the worker has nothing in hand; only then it gets a run that may be what kills workers, alone.

        Returns:
            The claims; fewer when the queues are empty or suspended.
        """
        told, *replies = await self._writer.call(
            CLAIM,
            self._keys,
            (
                count,
                self._worker,
                secrets.token_hex(6),
                round(self._lease * 1000),
                utcformat(datetime.now(UTC)),
                int(idle),
                MAX_STRIKES - 1,
                MAX_CLUSTER_STRIKES - 1,
                keys.job(""),
                keys.registry("wip", ""),
                keys.queue(""),
                keys.RUN,
                keys.results(""),
                keys.registry("failed", ""),
                self._weights,
                self._most,
                *FIELDS,
            ),
            patient=False,
        )
        self.told = Order(told.decode()) if told else None
        return [Claim.parse(one) for one in replies]

    async def listen(self, redis: Any, wake: Callable[[], None], command: Callable[[dict[str, Any]], None]) -> None:
        """Listens for ever.

        Args:
            redis: an asyncio connection.
            wake: called when something was pushed onto a queue.
            command: called with each command that RQ's tools send to this worker.
        """
        while True:
            try:
                async with redis.pubsub() as channel:
                    await channel.subscribe(*self._channels, self._commands)
                    # What was pushed before is not heard of.
                    wake()
                    async for message in _messages(channel):
                        if message["channel"].decode() == self._commands:
                            command(message)
                        else:
                            wake()
            except Exception as error:
                complain("listening for new runs, which are looked for each second instead,", error)
            await asyncio.sleep(_RECONNECT)


async def _messages(channel: Any) -> AsyncIterator[dict[str, Any]]:
    """Yields messages for ever; a Redis that is cut off, and so says nothing at all, raises."""
    asked = False
    while True:
        message = await channel.get_message(timeout=_SILENCE)
        if message is not None:
            asked = False
            if message["type"] == "message":
                yield message
        elif asked:
            raise TimeoutError(f"Redis has not answered for {_SILENCE:g} s")
        else:
            await channel.ping()
            asked = True

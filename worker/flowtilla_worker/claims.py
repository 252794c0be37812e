"""Takes runs off their queues, and hears of new ones."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError
from rq.utils import utcformat

from flowtilla import keys
from flowtilla_worker.attempt import FIELDS, Claim
from flowtilla_worker.engine.poison import MAX_CLUSTER_STRIKES, MAX_STRIKES
from flowtilla_worker.scripts import CLAIM
from flowtilla_worker.writer import Writer

_log = logging.getLogger("flowtilla.worker")

#: Seconds between tries to listen again.
_RECONNECT = 1.0


class Claims:
    """Claims runs for one worker, from several queues in order of priority.

    Args:
        writer: calls the script.
        worker: the worker's name.
        queues: the queues, the most urgent first.
        lease: seconds until a run that is not renewed may be claimed again.
    """

    def __init__(self, writer: Writer, worker: str, queues: Sequence[str], lease: float) -> None:
        self._writer = writer
        whose = (keys.LEASES, keys.SUSPENDED, keys.DAMAGED, keys.claim(worker))
        self._keys = (*whose, *(keys.queue(name) for name in queues))
        self._channels = [keys.wake(name) for name in queues]
        self._commands = keys.commands(worker)
        self._worker = worker
        self._lease = lease

    async def take(self, count: int, idle: bool) -> list[Claim] | None:
        """Claims runs.

        Args:
            count: how many at most.
            idle: whether the worker has nothing in hand; only then it gets a run that may be what kills workers, alone.

        Returns:
            The claims; fewer when the queues are empty; None while `rq suspend` holds the fleet.
        """
        suspended, *replies = await self._writer.call(
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
                *FIELDS,
            ),
        )
        return None if suspended else [Claim.parse(one) for one in replies]

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
                    async for message in channel.listen():
                        if message["type"] != "message":
                            continue
                        if message["channel"].decode() == self._commands:
                            command(message)
                        else:
                            wake()
            except (RedisError, OSError) as error:
                _log.warning("not listening, looking each second instead: %s: %s", type(error).__name__, error)
            await asyncio.sleep(_RECONNECT)

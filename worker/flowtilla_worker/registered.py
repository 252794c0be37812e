"""A worker as RQ knows it: its name, its record, and RQ's own maintenance."""

import asyncio
import logging
import os
import resource
import secrets
import socket
import sys
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError
from rq.serializers import JSONSerializer
from rq.utils import as_text, utcformat, utcparse
from rq.worker import BaseWorker

from flowtilla.errors import WorkerNameTaken
from flowtilla.settings import WorkerSettings
from flowtilla_worker.compute import Compute

_log = logging.getLogger("flowtilla.worker")

#: Seconds that RQ's record of the worker lives before its first heartbeat.
_RECORD = 20


class RegisteredWorker(BaseWorker):
    """What RQ's tools and our clients see of a worker.

    Args:
        settings: its queues and its lease.
        connection: a blocking connection to the Redis.
        compute: the executor it runs on.
        name: its name in the fleet; made from host and process when None.
    """

    def __init__(self, settings: WorkerSettings, connection: Any, compute: Compute, name: str | None) -> None:
        super().__init__(
            list(settings.queues),
            name=name or f"{socket.gethostname().split('.')[0]}-{os.getpid()}-{secrets.token_hex(2)}",
            connection=connection,
            serializer=JSONSerializer,
            # What that would do needs CLIENT SETNAME; host and process are all that anybody reads.
            prepare_for_work=False,
            # RQ derives from it how long it waits for a silent Redis; the heartbeat keeps the record alive.
            worker_ttl=_RECORD,
        )
        self.hostname, self.pid = socket.gethostname(), os.getpid()
        self._compute = compute
        self._lease = settings.lease

    def serialize(self) -> dict[str, Any]:
        """Returns RQ's record of the worker, and what our clients read there."""
        return {**super().serialize(), **self.shown()}

    def shown(self) -> dict[str, str]:
        """Returns what the record says beside what RQ knows."""
        compute = self._compute
        return {
            "executor": compute.executor.kind,
            "ready": "yes" if compute.ready else "no",
            "ready_since": utcformat(compute.since),
            "cluster": compute.detail,
            "lease": repr(self._lease),
            "peak_memory": str(_peak_memory()),
        }

    def take_name(self) -> None:
        """Registers the worker with RQ; a name whose worker has not beaten for a lease is free again.

        Raises:
            WorkerNameTaken: a live worker has it.
        """
        beat, death = self.connection.hmget(self.key, "last_heartbeat", "death")
        if beat is not None and death is None:
            silent = (datetime.now(UTC) - utcparse(as_text(beat))).total_seconds()
            if silent < self._lease:
                raise WorkerNameTaken(
                    f"a worker named {self.name!r} beat {silent:.0f} s ago: "
                    "give this one another --name, or none to have one made"
                )
            self.connection.delete(self.key)
        self.register_birth()  # type: ignore[no-untyped-call]

    async def maintain(self) -> None:
        """Runs RQ's own maintenance of its registries, as RQ's workers do, for ever."""
        while True:
            try:
                await asyncio.to_thread(self.run_maintenance_tasks)
            except RedisError as error:
                _log.warning("RQ's maintenance failed, it is tried again: %s", error)
            await asyncio.sleep(self.maintenance_interval)


def _peak_memory() -> int:
    """Returns the most bytes that this process has used."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""A worker as RQ knows it: its name and its record."""

import os
import resource
import secrets
import socket
import sys
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import ResponseError
from rq.serializers import JSONSerializer
from rq.utils import as_text, utcformat, utcparse
from rq.worker import BaseWorker
from rq.worker_registration import register

from flowtilla import keys
from flowtilla.errors import WorkerNameTaken
from flowtilla.settings import WorkerSettings
from flowtilla_worker.compute import Compute

#: Seconds that RQ's record of the worker lives before its first heartbeat.
_RECORD = 80


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
            worker_ttl=20,
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
        silent = self._silent()
        if silent is not None and silent < self._lease:
            raise WorkerNameTaken(
                f"a worker named {self.name!r} beat {silent:.0f} s ago: "
                "give this one another --name, or none to have one made"
            )
        self.register(self.connection)

    def give_name_back(self) -> None:
        """Tells RQ that the worker is gone; what it was told goes with it."""
        self.register_death()  # type: ignore[no-untyped-call]
        self.connection.delete(keys.order(self.name))

    def register(self, connection: Any) -> None:
        """Writes RQ's record of the worker, in place of whatever is there, over a connection."""
        self.last_heartbeat = datetime.now(UTC)
        self.birth_date = self.birth_date or self.last_heartbeat
        with connection.pipeline() as pipe:
            pipe.delete(self.key)
            pipe.hset(self.key, mapping=self.serialize())
            pipe.expire(self.key, _RECORD)
            register(self, pipe)
            pipe.execute()

    def _silent(self) -> float | None:
        """Returns for how many seconds a worker of this name has been silent; None when there is none."""
        try:
            beat, death = self.connection.hmget(self.key, "last_heartbeat", "death")
            if beat is None or death is not None:
                return None
            return (datetime.now(UTC) - utcparse(as_text(beat))).total_seconds()
        except (ResponseError, ValueError):
            # What cannot be read is no record of a worker.
            return None


def _peak_memory() -> int:
    """Returns the most bytes that this process has used."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

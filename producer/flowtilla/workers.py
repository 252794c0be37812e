"""The workers of the fleet, as each tells Redis about itself."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from rq.utils import utcparse

from flowtilla import keys
from flowtilla.steps import Steps, hashes
from flowtilla.untrusted import FAULTS

_log = logging.getLogger(__name__)


class Order(StrEnum):
    """What a worker can be told."""

    #: To take no runs, until it is told to go on.
    SUSPEND = "suspend"
    #: To take no runs, and to end when it has none left.
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """What a live worker said with its last heartbeat.

    Args:
        name: its name in the fleet.
        host, pid: its process.
        queues: what it takes runs from, the most urgent first.
        state: `draining`; `suspended`, itself or with the fleet; else `busy` or `idle`, or what else RQ calls it.
        runs: how many runs it has in hand.
        executor: the kind of its executor: `local`, `ray`, `dask` or the user's own.
        ready: whether the executor runs; the worker takes no run before.
        ready_since: since when `ready` is what it is.
        cluster: what the executor runs on, in a sentence; or why it does not.
        started_at: when the worker began.
        heartbeat_at: when it said this.
        suspended: those of its queues from which nobody takes runs.
    """

    name: str
    host: str
    pid: int
    queues: tuple[str, ...]
    state: str
    runs: int
    executor: str
    ready: bool
    ready_since: datetime
    cluster: str
    started_at: datetime
    heartbeat_at: datetime
    suspended: tuple[str, ...] = ()

    @classmethod
    def parse(cls, name: str, fields: Mapping[bytes, bytes], now: datetime) -> "WorkerRecord | None":
        """Returns the record in a worker's hash; None when it is no worker of ours, or has not beaten for its lease."""
        text = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in fields.items()}
        if "lease" not in text or "death" in text:
            return None
        heartbeat_at = utcparse(text["last_heartbeat"])
        if now - heartbeat_at > timedelta(seconds=float(text["lease"])):
            return None
        return cls(
            name=name,
            host=text["hostname"],
            pid=int(text["pid"]),
            queues=tuple(text["queues"].split(",")),
            state=text.get("state", "starting"),
            runs=int(text.get("runs", 0)),
            executor=text["executor"],
            ready=text["ready"] == "yes",
            ready_since=utcparse(text["ready_since"]),
            cluster=text["cluster"],
            started_at=utcparse(text["birth"]),
            heartbeat_at=heartbeat_at,
        )


def list_workers() -> Steps[list[WorkerRecord]]:
    """Reads the live workers of the fleet, by name; those whose record cannot be read are left out."""
    known = sorted(key.decode(errors="replace") for key in (yield lambda redis: redis.smembers(keys.WORKERS)))
    read = yield from hashes(known)
    now = datetime.now(UTC)
    found = []
    for key, fields in zip(known, read, strict=True):
        try:
            record = WorkerRecord.parse(key.removeprefix(keys.worker("")), fields, now)
        except FAULTS as error:
            _log.warning("the record of worker %r cannot be read: %s: %.200s", key, type(error).__name__, error)
        else:
            found += [] if record is None else [record]
    return (yield from _as_told(found))


def _as_told(records: Sequence[WorkerRecord]) -> Steps[list[WorkerRecord]]:
    """Returns the records with what the workers, their queues and the fleet are told at this moment."""
    queues = sorted({queue for record in records for queue in record.queues})
    orders = [keys.order(record.name) for record in records]
    fleet, *told = yield lambda redis: redis.mget(keys.SUSPENDED, *orders, *map(keys.suspended, queues))
    suspended = {queue for queue, switch in zip(queues, told[len(orders) :], strict=True) if switch is not None}

    def as_told(record: WorkerRecord, order: bytes | None) -> WorkerRecord:
        held = "draining" if order == b"drain" else "suspended" if order or fleet else record.state
        return replace(record, state=held, suspended=tuple(queue for queue in record.queues if queue in suspended))

    return [as_told(record, order) for record, order in zip(records, told, strict=False)]

"""The workers of the fleet, as each tells Redis about itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rq.utils import utcparse

from flowtilla import keys
from flowtilla.steps import Steps, pipeline


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """What a live worker said with its last heartbeat.

    Args:
        name: its name in the fleet.
        host, pid: its process.
        queues: what it takes runs from, the most urgent first.
        state: `busy`, `idle`, or what else RQ calls it.
        runs: how many runs it has in hand.
        executor: the kind of its executor: `local`, `ray`, `dask` or the user's own.
        ready: whether the executor runs; the worker takes no run before.
        ready_since: since when `ready` is what it is.
        cluster: what the executor runs on, in a sentence; or why it does not.
        started_at: when the worker began.
        heartbeat_at: when it said this.
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
    """Reads the live workers of the fleet, by name."""
    known = sorted(key.decode() for key in (yield lambda redis: redis.smembers(keys.WORKERS)))
    hashes = yield from pipeline(*(lambda redis, key=key: redis.hgetall(key) for key in known))
    now = datetime.now(UTC)
    records = (
        WorkerRecord.parse(key.removeprefix(keys.worker("")), fields, now)
        for key, fields in zip(known, hashes, strict=True)
    )
    return [record for record in records if record is not None]

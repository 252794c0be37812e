"""What was written, in order, read from the server's append-only file: the witness that nobody can talk to."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowtilla import keys

#: The lease of the fleet, in seconds; a claim's time is read from the end of its lease.
LEASE = 10.0

_ENDED = ("finished", "failed", "canceled", "stopped")


@dataclass(frozen=True)
class Event:
    """One thing that was written about a run.

    Args:
        kind: submitted | claimed | reaped | queued | stage | kept | ended.
        at: the server's time; whole seconds except for claims.
        attempt: of a claim or a stage's record.
        name: the worker of a claim, the stage, or how the run ended.
        state: of a stage.
        token: of a claim, or whose a reaped one was.
        order: its place among all that was written.
    """

    kind: str
    at: float
    attempt: int = 0
    name: str = ""
    state: str = ""
    token: str = ""
    order: int = 0


def read(folder: Path) -> dict[str, list[Event]]:
    """Returns the events of each run."""
    events: dict[str, list[Event]] = defaultdict(list)
    leased: dict[str, float] = {}
    now = 0.0
    job, run = keys.job(""), keys.RUN
    for order, words in enumerate(_commands(folder)):
        if isinstance(words, float):
            now = words
            continue
        name, key = words[0].upper(), words[1].decode(errors="replace") if len(words) > 1 else ""
        if name == b"ZADD" and key == keys.LEASES:
            leased[words[3].decode()] = float(words[2]) / 1000 - LEASE
        elif name == b"HSET" and key.startswith(job):
            run_id = key.removeprefix(job)
            fields = {words[i].decode(): words[i + 1] for i in range(2, len(words), 2)}
            if (event := _of_job(fields, now, leased.get(run_id, now))) is not None:
                events[run_id].append(replace(event, order=order))
        elif name == b"HSET" and key.startswith(run):
            run_id, _, what = key.removeprefix(run).partition(":")
            for i in range(2, len(words), 2):
                events[run_id].append(_of_stage(what, words[i].decode(), words[i + 1], now))
    return dict(events)


def _of_job(fields: dict[str, bytes], now: float, leased: float) -> Event | None:
    status = fields.get("status", b"").decode()
    if status == "started":
        token = fields["token"].decode()
        return Event("claimed", leased, int(token.partition("-")[0]), fields["worker_name"].decode(), token=token)
    if "data" in fields:
        return Event("submitted", now)
    if status == "queued":
        taken = fields.get("taken", b"").decode()
        return Event("reaped", now, token=taken) if taken else Event("queued", now)
    return Event("ended", now, name=status) if status in _ENDED else None


def _of_stage(what: str, stage: str, text: bytes, now: float) -> Event:
    if what == "values":
        return Event("kept", now, name=stage)
    record: dict[str, Any] = json.loads(text)
    return Event("stage", now, record.get("attempt", 0), stage, record["state"])


def _commands(folder: Path) -> Iterator[list[bytes] | float]:
    """Yields each command, and the time whenever a second has passed."""
    for path in sorted(folder.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3])):
        with path.open("rb") as file:
            while line := file.readline():
                if line.startswith(b"#TS:"):
                    yield float(line[4:])
                elif line.startswith(b"*"):
                    words = []
                    for _ in range(int(line[1:])):
                        size = int(file.readline()[1:])
                        words.append(file.read(size + 2)[:-2])
                    yield words

"""One attempt of one run: what was claimed, and every write under its token."""

import json
import time
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json
from rq.results import Result
from rq.utils import utcformat

from flowtilla import keys
from flowtilla.errors import LeaseLost
from flowtilla.logs import LogLine
from flowtilla.names import namespace_of
from flowtilla.record import ErrorRecord, StageRecord, error_to_dict
from flowtilla.settings import SigningSettings
from flowtilla.states import RunState
from flowtilla_worker.engine.halt import Halt
from flowtilla_worker.scripts import COMMIT, LINES, RELEASE
from flowtilla_worker.seal import Seal
from flowtilla_worker.writer import Writer

#: How many lines a run's live log keeps in Redis; the whole log is in storage after the end.
LOG_LINES = 10_000

#: What another attempt reads of it at most, in lines (there are some more, for Redis removes them in blocks) and bytes:
#: who can write to Redis may have put anything there.
_LOG_READ, _LOG_BYTES = LOG_LINES + 1_000, 64 * 1024**2

#: Seconds after a write for which nobody else can have the run.
_SURE = 1.0

#: How a run ends, in RQ's words: job status, registry, result type, the worker's counter.
_ENDS = {
    RunState.FINISHED: ("finished", "finished", Result.Type.SUCCESSFUL, "successful_job_count"),
    RunState.FAILED: ("failed", "failed", Result.Type.FAILED, "failed_job_count"),
    RunState.QUARANTINED: ("failed", "failed", Result.Type.FAILED, "failed_job_count"),
    RunState.CANCELLED: ("canceled", "canceled", Result.Type.STOPPED, "failed_job_count"),
}


#: The fields of a job that a claim brings along.
FIELDS = (
    "data",
    "signature",
    "origin",
    "stages",
    "cancel",
    "log_parts",
    "strikes",
    "cluster_strikes",
    "failures",
    "lost_worker",
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A run as the claim script hands it over.

    Args:
        run_id: the run, which is the RQ job.
        token: names this attempt; whoever holds another may write nothing.
        attempt: its number, from 1.
        job: the job's fields that `FIELDS` names, those that it has.
        stages, values: what earlier attempts recorded and committed, by stage.
        elapsed: seconds since the run first began.
    """

    run_id: str
    token: str
    attempt: int
    job: Mapping[str, bytes]
    stages: Mapping[str, bytes]
    values: Mapping[str, bytes]
    elapsed: float

    @classmethod
    def parse(cls, reply: Sequence[Any]) -> "Claim":
        """Returns the claim in one entry of the script's reply."""
        run_id, token, attempt, fields = reply[:4]
        stages, values, elapsed = reply[4:7] if len(reply) > 4 else ((), (), 0)
        job = {name: value for name, value in zip(FIELDS, fields, strict=True) if value is not None}
        return cls(run_id.decode(), token.decode(), int(attempt), job, _pairs(stages), _pairs(values), elapsed / 1000)

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self.job["origin"].decode()

    def count(self, field: str) -> int:
        """Returns a counter of the job; what is no number counts as none."""
        text = self.job.get(field, b"")
        return int(text) if text.isdigit() and len(text) < 10 else 0

    @property
    def namespace(self) -> str:
        """Where its artifacts live; empty when the job is none of ours."""
        # Not the field of the job: Redis guards runs by their ids, and lets who may write this one name any.
        return namespace_of(self.run_id)

    @property
    def signature(self) -> str:
        """What says that a holder of a key submitted it; empty when nothing does."""
        return self.job.get("signature", b"").decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Notes:
    """What an attempt has to say.

    Args:
        stages: records that changed.
        values: committed values by stage, as JSON.
        job: fields of the job.
        lines: log lines.
        first: the number of the first of them in the run's log.
        further: whether a stage has ended that had not ended in any earlier attempt.
    """

    stages: Sequence[StageRecord] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    job: Mapping[str, str] = field(default_factory=dict)
    lines: Sequence[LogLine] = ()
    first: int = 1
    further: bool = False

    def to_wire(self, seal: Seal) -> dict[str, Any]:
        """Returns what the commit script takes."""
        return {
            "stages": {record.name: seal.put("stage", record.name, record.to_json()) for record in self.stages},
            "values": {name: seal.put("value", name, text) for name, text in self.values.items()},
            "job": self.job,
            "lines": [line.to_json() for line in self.lines],
            "first": str(self.first),
            "further": "1" if self.further else "0",
        }


class Attempt:
    """Every write of one attempt, refused by Redis once the attempt has lost its lease.

    Args:
        claim: what was claimed.
        writer: where writes go.
        worker: the worker's name.
        signing: the keys with which what later attempts read is signed.
    """

    def __init__(self, claim: Claim, writer: Writer, worker: str, signing: SigningSettings) -> None:
        self.claim = claim
        self.seal = Seal(signing, claim.run_id, claim.namespace, claim.signature)
        self._writer = writer
        self._worker = worker
        self._confirmed = time.monotonic()

    async def check(self) -> None:
        """Makes sure, before something is stored elsewhere, that the run is still this attempt's.

        Redis refuses what a frozen worker writes once it thaws; storage cannot, so Redis is asked first.

        Raises:
            LeaseLost: it is another attempt's.
        """
        if time.monotonic() - self._confirmed > _SURE:
            await self.write(Notes())

    async def write(self, notes: Notes) -> bool:
        """Writes what the attempt has to say.

        Returns:
            Whether somebody asked for the run to be cancelled.

        Raises:
            LeaseLost: the run is another attempt's now; nothing was written.
        """
        return await self._commit(notes.to_wire(self.seal)) == b"cancel"

    async def end(
        self,
        state: RunState,
        *,
        notes: Notes,
        keep: float,
        started: float,
        result: Any = None,
        error: ErrorRecord | None = None,
    ) -> None:
        """Ends the run: RQ's status, result and registries, and ours, in one step with what is left to write.

        Args:
            state: how it ended.
            notes: what is left to write.
            keep: seconds to keep it.
            started: when this attempt began, in seconds since the epoch.
            result: its result, plain data; None when it has none.
            error: why it failed.

        Raises:
            LeaseLost: the run is another attempt's now; nothing was written.
        """
        status, registry, kind, counter = _ENDS[state]
        now = datetime.now(UTC)
        fields = {"status": status, "ended_at": utcformat(now)}
        outcome: dict[str, str] = {"type": str(kind.value), "worker_name": self._worker}
        if error is not None:
            fields["failure"] = json.dumps(error_to_dict(error))
            outcome["exc_string"] = b64encode(zlib.compress(_described(error).encode())).decode()
        if state is RunState.QUARANTINED:
            fields["quarantined"] = "1"
        elif state is RunState.FAILED:
            fields["failures"] = str(self.claim.count("failures") + 1)
        if result is not None:
            outcome["return_value"] = b64encode(json.dumps(result, allow_nan=False).encode()).decode()
        if "result_reference" in notes.job:
            # Tells the client that the value is a reference; RQ reads over it.
            outcome["stored"] = "1"
        outcome["execution_id"] = self.claim.token
        outcome["execution_started_at"] = repr(started)
        outcome["execution_ended_at"] = repr(now.timestamp())
        seconds = max(1, round(keep))
        forget = state is RunState.FINISHED
        say = notes.to_wire(self.seal)
        say["job"] = {**notes.job, **fields}
        if forget:
            say["values"] = {}
        say["end"] = {
            "keep": str(seconds),
            "over": str(round(now.timestamp()) + seconds),
            "member": f"{self.claim.namespace}/{self.claim.run_id}",
            "forget": "1" if forget else "0",
            "counter": counter,
            "worked": f"{now.timestamp() - started:.6f}",
            "result": outcome,
        }
        await self._commit(say, registry)

    async def earlier_lines(self, after: int) -> list[tuple[int, str]]:
        """Returns the lines, number and JSON, that earlier attempts left in Redis behind a line of that number."""
        entries = await self._writer.call(LINES, (keys.log(self.claim.run_id),), (_LOG_READ, _LOG_BYTES))
        # A script's reply is not parsed: each entry is its id, attempt and number, and its fields, of which it has one.
        found = [(int(name.partition(b"-")[2]), fields[1].decode()) for name, fields in reversed(entries)]
        return [(number, line) for number, line in found if number > after]

    async def release(self, why: Halt) -> bool:
        """Hands the run back to the front of its queue.

        Args:
            why: what ended the attempt; that its cluster is gone, or that it broke, is counted.

        Returns:
            Whether it was still this attempt's.
        """
        run_id, queue = self.claim.run_id, self.claim.queue
        released = await self._writer.call(
            RELEASE,
            (keys.job(run_id), keys.LEASES, keys.registry("wip", queue)),
            (self.claim.token, run_id, queue, why.value),
        )
        return bool(released)

    async def _commit(self, say: Mapping[str, Any], registry: str = "finished") -> bytes:
        run_id, queue = self.claim.run_id, self.claim.queue
        answer: bytes = await self._writer.call(
            COMMIT,
            (
                keys.job(run_id),
                keys.stages(run_id),
                keys.values(run_id),
                keys.log(run_id),
                keys.LEASES,
                keys.registry("wip", queue),
                keys.registry(registry, queue),
                keys.results(run_id),
                keys.ENDED,
                keys.worker(self._worker),
            ),
            # Many a run has little more to say than this: pydantic's writer takes a fifth of the time of json's.
            (self.claim.token, run_id, LOG_LINES, to_json(say)),
        )
        if answer == b"lost":
            raise LeaseLost(
                f"run {run_id}: attempt {self.claim.attempt} has lost its lease, so it may write nothing more; "
                "another attempt goes on with the run"
            )
        self._confirmed = time.monotonic()
        return answer


def _pairs(reply: Sequence[bytes]) -> dict[str, bytes]:
    return {name.decode(errors="replace"): value for name, value in zip(reply[::2], reply[1::2], strict=True)}


def for_dashboards(text: str) -> str:
    """Returns text that a page may show as it is: rq-dashboard escapes it on one page and not on another."""
    return text.replace("<", "‹").replace(">", "›")


def _described(error: ErrorRecord) -> str:
    where = "" if error.stage is None else f"stage {error.stage}"
    where += "" if error.item is None else f", item {error.item}"
    said = error.traceback or f"{error.error}: {error.message}"
    return for_dashboards(f"{where}\n{said}" if where else said)

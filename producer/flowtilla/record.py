"""What Redis knows of a run, as data."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from rq.utils import utcparse

from flowtilla.errors import RunCancelled, RunError, RunFailed, RunQuarantined
from flowtilla.names import namespace_of
from flowtilla.states import FROM_RQ, RunState, StageState
from flowtilla.untrusted import Moment, from_json, readable


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An exception as a run keeps it.

    Args:
        error: its class, as `module.QualName`.
        message: what it said.
        traceback: the full traceback.
        stage, item: where it was raised; None when the run failed outside a stage, or the stage is a simple one.
    """

    error: str
    message: str
    traceback: str = ""
    stage: str | None = None
    item: int | None = None


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What happened to one stage.

    Args:
        name: the stage.
        state: where it is.
        done, failed, total: how many items ended well, ended badly, and there are; a simple stage has one.
            `total` is None until it is known.
        retries: how many tries followed a failed one.
        attempt: the attempt of the run that ran it last.
        started, ended: seconds since the epoch.
        size: about how many bytes its value takes.
        error: why it failed.
        errors: each failed item's error, by index.
        artifacts: what it stored, as plain data.
    """

    name: str
    state: StageState = StageState.WAITING
    done: int = 0
    failed: int = 0
    total: int | None = None
    retries: int = 0
    attempt: int = 0
    started: Moment | None = None
    ended: Moment | None = None
    size: int | None = None
    error: ErrorRecord | None = None
    errors: Mapping[int, ErrorRecord] = field(default_factory=dict)
    artifacts: tuple[Mapping[str, Any], ...] = ()

    @property
    def seconds(self) -> float | None:
        """How long it took, or None while it has not ended."""
        return None if self.started is None or self.ended is None else self.ended - self.started

    def to_json(self) -> str:
        """Returns the record without what is a default."""
        fields: dict[str, Any] = {"state": self.state}
        for name in ("done", "failed", "total", "retries", "attempt", "started", "ended", "size"):
            if value := getattr(self, name):
                fields[name] = value
        if self.error is not None:
            fields["error"] = error_to_dict(self.error)
        if self.errors:
            fields["errors"] = {index: error_to_dict(error) for index, error in self.errors.items()}
        if self.artifacts:
            fields["artifacts"] = list(self.artifacts)
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, name: str, text: str | bytes) -> "StageRecord":
        """Returns the record that `to_json` wrote; a signature may stand in a line before it.

        Raises:
            ValueError, TypeError: it did not.
        """
        data = text.encode() if isinstance(text, str) else text
        record: StageRecord = _checked({**from_json(data.rpartition(b"\n")[2]), "name": name}, StageRecord)
        return record


def error_to_dict(error: ErrorRecord) -> dict[str, Any]:
    """Returns the error as plain data."""
    return {name: value for name, value in asdict(error).items() if value is not None}


_reader = cache(TypeAdapter)


def _checked(data: Any, kind: Any) -> Any:
    """Returns plain data as what it should be; raises ValueError when it is not."""
    return _reader(kind).validate_python(data)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What Redis knows of a run at one moment.

    Args:
        id: the run's id, which is the RQ job's.
        state: where it is.
        workflow, namespace, queue, tags: as submitted.
        attempt: how many times a worker took it up.
        failures: how many attempts ended since a stage raised, or the run could not begin.
        losses: how many workers were lost with it in hand: they died unseen, froze, or were cut off.
        crashes: how many were seen to die with it in hand, or broke down on it.
        cluster_losses: how many clusters died under it.
        waits_for: the limit of concurrency that it waits for: `key:` or `workflow:` and a name.
        worker: the worker that has or had it last.
        stages_total: how many stages it has.
        created_at, started_at, ended_at: in UTC.
        error: why it failed.
        result_reference, log_reference: where the result is when it is not inline, and the whole log after the end.
        stages: the record of each stage that was begun.
    """

    id: str
    state: RunState
    workflow: str
    namespace: str
    queue: str
    tags: tuple[str, ...]
    attempt: int
    failures: int
    losses: int
    crashes: int
    cluster_losses: int
    waits_for: str | None
    worker: str | None
    stages_total: int
    created_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    error: ErrorRecord | None
    result_reference: Mapping[str, Any] | None
    log_reference: Mapping[str, Any] | None
    stages: Mapping[str, StageRecord]

    @classmethod
    def parse(
        cls, run_id: str, job: Mapping[bytes, bytes], stages: Mapping[bytes, bytes] | None = None
    ) -> "RunRecord | None":
        """Returns the record in a job's hash and the hash of its stages, or None when the job is not a run of ours.

        Raises:
            RunDamaged: it is one, and cannot be read.
        """
        fields = {key.decode(errors="replace"): value for key, value in job.items()}
        if "namespace" not in fields or "workflow" not in fields:
            return None
        with readable(run_id):
            return cls._parsed(run_id, fields, stages or {})

    @classmethod
    def _parsed(cls, run_id: str, fields: Mapping[str, bytes], stages: Mapping[bytes, bytes]) -> "RunRecord":
        def text(name: str) -> str:
            return fields.get(name, b"").decode(errors="replace")

        def count(name: str) -> int:
            return int(fields.get(name, 0))

        def data(name: str, default: bytes, kind: Any) -> Any:
            return _checked(from_json(fields.get(name, default)), kind)

        state = FROM_RQ.get(text("status"), RunState.QUEUED)
        if state is RunState.FAILED and "quarantined" in fields:
            state = RunState.QUARANTINED
        return cls(
            id=run_id,
            state=state,
            workflow=text("workflow"),
            # Not the field: Redis guards runs by their ids, and lets who may write this one name any.
            namespace=namespace_of(run_id),
            # While it waits, of which line in the queue is said too.
            queue=text("origin").partition("@")[0],
            tags=data("tags", b"[]", tuple[str, ...]),
            attempt=count("attempt"),
            failures=count("failures"),
            losses=count("losses"),
            crashes=count("crashes"),
            cluster_losses=count("cluster_losses"),
            waits_for=text("waits_for") or None,
            worker=text("worker_name") or None,
            stages_total=count("stages"),
            created_at=_moment(text("created_at")),
            started_at=_moment(text("started_at")),
            ended_at=_moment(text("ended_at")),
            error=data("failure", b"null", ErrorRecord | None),
            result_reference=data("result_reference", b"null", dict[str, Any] | None),
            log_reference=data("log_reference", b"null", dict[str, Any] | None),
            stages={name.decode(): StageRecord.from_json(name.decode(), text) for name, text in stages.items()},
        )

    @property
    def progress(self) -> tuple[int, int]:
        """How many stages have ended, and how many there are."""
        return sum(stage.state.ended for stage in self.stages.values()), self.stages_total

    def to_error(self) -> RunError:
        """Returns what `result()` raises of a run that ended badly."""
        if self.state is RunState.CANCELLED:
            return RunCancelled(f"run {self.id} ({self.workflow}) was cancelled", run_id=self.id)
        error = self.error or ErrorRecord("", "it ended outside flowtilla; see the job in rq")
        where = "" if error.stage is None else f" in stage {error.stage!r}"
        where += "" if error.item is None else f", item {error.item}"
        quarantined = self.state is RunState.QUARANTINED
        said = f"{error.error}: {error.message}" if error.error else error.message
        return (RunQuarantined if quarantined else RunFailed)(
            f"run {self.id} ({self.workflow}) {'was quarantined' if quarantined else 'failed'}{where}: {said}",
            run_id=self.id,
            error=error.error,
            error_message=error.message,
            traceback=error.traceback,
            stage=error.stage,
            item=error.item,
        )


def _moment(text: str) -> datetime | None:
    return utcparse(text) if text else None

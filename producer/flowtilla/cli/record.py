"""A run's record, for people and for programs."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flowtilla.cli.output import moment, print_table

#: Characters of an error that a list of runs shows.
_SUMMARY = 100

if TYPE_CHECKING:
    from flowtilla.record import ErrorRecord, RunRecord, StageRecord


def as_data(record: "RunRecord") -> dict[str, Any]:
    """Returns the record as plain data."""
    done, total = record.progress
    return asdict(record) | {"progress": {"done": done, "total": total}}


def print_record(record: "RunRecord") -> None:
    """Prints a run, its stages, and why it failed."""
    done, total = record.progress
    rows = {
        "run": record.id,
        "state": f"{record.state}, {done}/{total} stages",
        "waits for": record.waits_for and f"its turn: as many of {record.waits_for} run as may at once",
        "workflow": record.workflow,
        "namespace": record.namespace,
        "queue": record.queue,
        "tags": ", ".join(record.tags),
        "attempt": str(record.attempt) if record.attempt else "",
        "trouble": _trouble(record),
        "worker": record.worker or "",
        "created": moment(record.created_at),
        "started": moment(record.started_at),
        "ended": moment(record.ended_at),
    }
    for name, value in rows.items():
        if value:
            print(f"{name:<10} {value}")
    if record.stages:
        print()
        print_table(
            ["STAGE", "STATE", "ITEMS", "TIME", "RETRIES", "ATTEMPT"], [_row(s) for s in record.stages.values()]
        )
    if record.error is not None:
        print(f"\n{describe(record.error)}")
    for stage in record.stages.values():
        if stage.errors:
            print(f"\nitems of {stage.name} that failed:")
            for index, error in stage.errors.items():
                print(f"  {index}: {error.error}: {error.message}")


def describe(error: "ErrorRecord") -> str:
    """Returns where a run failed, how, and the original traceback."""
    where = f"stage {error.stage}" if error.stage else "run"
    where += "" if error.item is None else f", item {error.item}"
    said = f"{error.error}: {error.message}" if error.error else error.message
    return f"{where}: {said}\n{error.traceback}".rstrip()


def summary(record: "RunRecord") -> str:
    """Returns where a run failed and how, or what it waits for, in one line."""
    error = record.error
    if error is None:
        return f"waits for {record.waits_for}" if record.waits_for else ""
    where = f"{error.stage}: " if error.stage else ""
    said = f"{where}{error.error.rpartition('.')[2]}: {error.message}".splitlines()[0]
    return said if len(said) <= _SUMMARY else f"{said[: _SUMMARY - 1]}…"


def items(stage: "StageRecord") -> str:
    """Returns how many of a stage's items have ended, of how many."""
    if stage.total is None:
        return ""
    failed = f", {stage.failed} failed" if stage.failed else ""
    return f"{stage.done}/{stage.total}{failed}"


def _trouble(record: "RunRecord") -> str:
    """Returns what ended its attempts, each counted apart."""
    counts = {
        "failed": record.failures,
        "lost their worker": record.losses,
        "crashed their worker": record.crashes,
        "lost their cluster": record.cluster_losses,
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _row(stage: "StageRecord") -> list[str]:
    seconds = "" if stage.seconds is None else f"{stage.seconds:.2f} s"
    return [stage.name, stage.state, items(stage), seconds, str(stage.retries or ""), str(stage.attempt or "")]

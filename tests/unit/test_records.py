"""What is kept of runs, stages and log lines, and which stages a later attempt skips."""

from hypothesis import given
from hypothesis import strategies as st

from flowtilla import Stage, Workflow
from flowtilla.logs import LogLine
from flowtilla.record import ErrorRecord, RunRecord, StageRecord
from flowtilla.states import RunState, StageState
from flowtilla_worker.engine.restore import done_before
from flowtilla_worker.plan.catalog import Catalog
from flowtilla_worker.plan.plan import Plan
from shapes import dags

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
number = st.integers(0, 10**6)
errors = st.builds(ErrorRecord, text, text, text, st.none() | text, st.none() | number)
records = st.builds(
    StageRecord,
    name=st.just("s"),
    state=st.sampled_from(StageState),
    done=number,
    failed=number,
    total=st.none() | st.integers(1, 10),
    retries=number,
    attempt=number,
    started=st.none() | st.floats(1, 1e10),
    ended=st.none() | st.floats(1, 1e10),
    size=st.none() | st.integers(1, 10),
    error=st.none() | errors,
    errors=st.dictionaries(number, errors, max_size=3),
    artifacts=st.lists(st.dictionaries(text, text, max_size=2), max_size=2).map(tuple),
)


@given(records)
def test_a_stage_record_survives_redis(record: StageRecord) -> None:
    """What is written is what is read."""
    assert StageRecord.from_json("s", record.to_json()) == record


@given(st.builds(LogLine, st.just("r"), text, st.none() | number, number, st.floats(0, 1e10), text, text, text, text))
def test_a_log_line_survives_redis(line: LogLine) -> None:
    """On one line, whatever it says."""
    written = line.to_json()
    assert "\n" not in written
    assert LogLine.from_json("r", written) == line


def test_a_job_of_somebody_else_is_no_run() -> None:
    """A plain RQ job has none of our fields."""
    assert RunRecord.parse("x", {b"status": b"queued", b"data": b"..."}) is None


def test_rqs_status_is_the_runs_state() -> None:
    """Also words of RQ's that flowtilla never writes."""
    ours = {b"namespace": b"n", b"workflow": b"w"}
    states = {
        b"queued": RunState.QUEUED,
        b"scheduled": RunState.QUEUED,
        b"started": RunState.RUNNING,
        b"finished": RunState.FINISHED,
        b"failed": RunState.FAILED,
        b"canceled": RunState.CANCELLED,
        b"stopped": RunState.CANCELLED,
    }
    for status, state in states.items():
        record = RunRecord.parse("x", ours | {b"status": status})
        assert record is not None and record.state is state
    quarantined = RunRecord.parse("x", ours | {b"status": b"failed", b"quarantined": b"1"})
    assert quarantined is not None and quarantined.state is RunState.QUARANTINED


def takes_all(*values: object) -> None:
    """A stage."""


@given(dags(), st.data())
def test_a_later_attempt_runs_exactly_what_it_must(nodes: dict[str, list[str]], data: st.DataObject) -> None:
    """Finished stages stay done unless their value is gone and needed; what runs has all its parents' values."""
    stages = [Stage(name=name, target=takes_all, depends_on=parents) for name, parents in nodes.items()]
    plan = Plan.of(Workflow("w", stages), Catalog(allowed_targets=["*"]))
    finished = data.draw(st.sets(st.sampled_from(sorted(nodes))))
    kept = data.draw(st.sets(st.sampled_from(sorted(nodes)))) & finished
    known = {name: StageRecord(name, StageState.FINISHED) for name in finished}

    done = done_before(plan, known, kept)

    assert done <= finished
    again = set(nodes) - done
    for name in again:
        # Whatever it needs is kept, or runs again before it.
        assert all(parent in kept or parent in again for parent in nodes[name])
    for name in again & finished:
        # It runs again for a reason: its value is gone, and it is a result or somebody who runs needs it.
        needed = name in plan.finals or any(name in nodes[child] for child in again)
        assert name not in kept and needed
    assert all(name in kept for name in done if name in plan.finals)

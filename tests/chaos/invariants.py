"""What must be true of every run, whatever happened: looked at from outside, when all is over."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flowtilla
from flowtilla.errors import ArtifactNotFound, RunNotFound
from flowtilla.record import RunRecord
from flowtilla.storage import ArtifactStore
from flowtilla_worker.engine.poison import MAX_STRIKES

from .faults import GIVEN_UP, Incident
from .history import Event
from .producers import Producers, patiently
from .recovery import Loss
from .workload import CUSTOMERS, MOST, Fails, Planned, shapes

#: What can be claimed.
_WAITING = ("submitted", "queued", "reaped")


def check_answer(
    planned: Planned, run: flowtilla.Run, record: RunRecord, cancelled: bool, deaths: int
) -> Iterator[str]:
    """Yields what is wrong with how a run ended; `deaths` is how many workers were lost under it."""
    shape, state, answer = shapes()[planned.shape], record.state, planned.answer
    if state == "cancelled" and cancelled:
        return
    if state == "quarantined" and (shape.poisonous or deaths >= MAX_STRIKES):
        return
    if isinstance(answer, Fails):
        error = record.error
        found = error and Fails(error.error, error.stage or "", error.item)
        if state != "failed" or found != answer:
            yield f"ended as {state} with {error and (found, error.message)} instead of {answer}"
    elif state != "finished":
        yield f"ended as {state}: {record.error and (record.error.error, record.error.message, record.error.stage)}"
    elif (result := patiently(lambda: run.result(timeout=10))) != answer:
        yield f"its result is {result!r:.100} instead of {answer!r:.100}"
    elif shape.partial is not None:
        odd = list(range(1, planned.x, 2))
        if sorted(record.stages[shape.partial].errors) != odd:
            yield f"the failed items are {sorted(record.stages[shape.partial].errors)} instead of {odd}"


def check_history(events: Sequence[Event], retried: bool) -> Iterator[str]:
    """Yields what is wrong with the order in which a run was written.

    A run is claimed by one at a time; only its present attempt writes; it ends once, and once more when it was
    retried; a stage whose value was kept is committed by one attempt and never again.
    """
    now, attempt, ends = "", 0, 0
    committed: dict[str, int] = {}
    kept: set[str] = set()
    for event in events:
        match event.kind:
            case "claimed":
                if now not in _WAITING or event.attempt != attempt + 1:
                    yield f"attempt {event.attempt} was claimed by {event.name} when it was {now}, attempt {attempt}"
                now, attempt = "claimed", event.attempt
            case "stage":
                if now != "claimed" or event.attempt != attempt:
                    written = f"attempt {event.attempt} wrote {event.name} {event.state}"
                    yield f"{written} when it was {now}, attempt {attempt}"
                if event.state == "finished":
                    if committed.get(event.name, attempt) != attempt and event.name in kept:
                        yield f"{event.name} was committed by attempt {committed[event.name]} and by {attempt}"
                    committed[event.name] = attempt
            case "kept":
                kept.add(event.name)
            case "ended":
                ends += 1
                if now not in ("claimed", *_WAITING) or (now != "claimed" and event.name != "canceled"):
                    yield f"it ended as {event.name} when it was {now}"
                now = "ended"
            case "submitted" | "queued" | "reaped":
                if event.kind == "reaped" and now != "claimed":
                    yield f"it was taken from its worker when it was {now}"
                now = event.kind
    if ends > 1 + retried:
        yield f"it ended {ends} times"


def check_marks(record: RunRecord, events: Sequence[Event], marks: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Yields what is wrong with what the stages left behind.

    A stage that is finished ran to its end in the attempt that committed it. No attempt after that began it, unless its
    value was not kept and the stage was committed again.
    """
    ran: dict[tuple[str, int], set[int | None]] = defaultdict(set)
    began: dict[str, int] = defaultdict(int)
    for event, stage, item, attempt, *_ in marks:
        if event == "end":
            ran[stage, attempt].add(item)
        else:
            began[stage] = max(began[stage], attempt)
    kept = {event.name: event.attempt for event in _commits(events)}
    for name, stage in record.stages.items():
        if stage.state == "finished" and len(ran[name, stage.attempt]) < stage.done:
            yield f"{name} is finished by attempt {stage.attempt}, in which {ran[name, stage.attempt]} ran to the end"
        if stage.state == "finished" and began[name] > stage.attempt:
            yield f"{name} is finished by attempt {stage.attempt} and began again in attempt {began[name]}"
        if name in kept and began[name] > kept[name]:
            yield f"{name} was committed and kept by attempt {kept[name]} and began again in attempt {began[name]}"


def _commits(events: Sequence[Event]) -> Iterable[Event]:
    """Returns the commits of the stages whose values were kept."""
    kept = {event.name for event in events if event.kind == "kept"}
    return [one for one in events if one.kind == "stage" and one.state == "finished" and one.name in kept]


def check_artifact(planned: Planned, record: RunRecord, store: ArtifactStore) -> Iterator[str]:
    """Yields what is wrong with what a run stored under its own name."""
    if "artifact" not in planned.shape:
        return
    stage = record.stages.get("stores")
    committed = stage is not None and stage.state == "finished"
    namespace = planned.options["namespace"]
    try:
        found = store.get(namespace, record.id).read()
    except ArtifactNotFound:
        # A run that is cancelled between a commit and the attempt that would have published it leaves it unpublished.
        if record.state == "finished":
            yield "its artifact was never published"
        return
    if not committed or found != {"run": record.id, "attempt": stage and stage.attempt}:
        yield f"its artifact is {found}, and stage stores is {stage and (stage.state, stage.attempt)}"


def check_shared(store: ArtifactStore, records: Mapping[str, RunRecord]) -> Iterator[str]:
    """Yields what is wrong with the artifacts that all runs share."""
    for namespace in store.namespaces():
        for artifact in store.list(namespace):
            who = artifact.read()
            stage = records[who["run"]].stages.get("stores")
            if stage is None or stage.state != "finished" or stage.attempt != who["attempt"]:
                yield f"artifact {namespace}/{artifact.name} is that of {who}, whose stage is {stage and stage.state}"


def check_limits(submitted: Mapping[str, Planned], history: Mapping[str, Sequence[Event]]) -> Iterator[str]:
    """Yields where a customer had more runs in hand than allowed; a run has its place from its claim to its end."""
    for customer in CUSTOMERS:
        limited = [
            run_id for run_id, planned in submitted.items() if customer in planned.options.get("concurrency", ())
        ]
        events = [(event.order, event.kind, run_id) for run_id in limited for event in history.get(run_id, ())]
        placed: set[str] = set()
        for _, kind, run_id in sorted(events):
            if kind == "claimed":
                placed.add(run_id)
            elif kind == "ended":
                placed.discard(run_id)
            if kind == "claimed" and len(placed) > MOST:
                yield f"{customer} may have {MOST} runs in hand and had {sorted(placed)}"


def check_given_up(incidents: Sequence[Incident]) -> Iterator[str]:
    """Yields which workers could not hand back a run when they had to end, though Redis was there."""
    redis = [one for one in incidents if one.target == "redis"]
    for given_up in (one for one in incidents if one.kind == GIVEN_UP):
        if not any(one.began < given_up.ended and one.ended > given_up.began for one in redis):
            yield f"{given_up.name} could not hand back a run after SIGTERM, and Redis was there"


def check_log(record: RunRecord, run: flowtilla.Run) -> Iterator[str]:
    """Yields which committed stages have no line in the log of a finished run."""
    lines = {(line.stage, line.attempt) for line in patiently(lambda: list(run.logs()))}
    for name, stage in record.stages.items():
        if record.state == "finished" and stage.done and (name, stage.attempt) not in lines:
            yield f"the log has no line of {name} in attempt {stage.attempt}"


def check_all(
    client: flowtilla.Client,
    producers: Producers,
    history: Mapping[str, Sequence[Event]],
    incidents: Sequence[Incident],
    lost: Sequence[Loss],
    folder: Path,
) -> tuple[dict[str, RunRecord], list[str]]:
    """Returns the record of each run, and all that is wrong."""
    store = ArtifactStore(client.settings.storage)
    records: dict[str, RunRecord] = {}
    # One that was frozen or cut off takes back that it was lost, but perhaps too late.
    deaths = Counter(loss.run_id for loss in lost if loss.cause is not None)
    wrong: list[str] = []
    for run_id, planned in producers.submitted.items():
        try:
            run = patiently(lambda run_id=run_id: client.get(run_id))
        except RunNotFound:
            wrong.append(f"run {run_id} ({planned.shape}): it was submitted, and is not there")
            continue
        record = records[run_id] = patiently(lambda run=run: run.record)
        events = history.get(run_id, ())
        file = folder / run_id
        marks = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        if not record.state.ended:
            found = [f"it has not ended, it is {record.state}"]
        else:
            found = [
                *check_answer(planned, run, record, run_id in producers.cancelled, deaths[run_id]),
                *check_marks(record, events, marks),
                *check_artifact(planned, record, store),
                *check_log(record, run),
            ]
        found += check_history(events, run_id in producers.retried)
        wrong += [f"run {run_id} ({planned.shape}): {one}" for one in found]
    wrong += check_shared(store, records)
    wrong += check_given_up(incidents)
    wrong += check_limits(producers.submitted, history)
    wrong += [
        f"run {loss.run_id}: attempt {loss.attempt} was taken from {loss.worker}, to which nothing had happened"
        for loss in lost
        if loss.cause is None
    ]
    return records, wrong

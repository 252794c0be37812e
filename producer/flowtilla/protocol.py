"""What a client says to Redis about runs that are there: one conversation per verb."""

import logging
import time
from base64 import b64decode
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any

from rq.utils import utcformat

from flowtilla import keys
from flowtilla.errors import RunDamaged, RunError, RunNotFinished, RunNotFound
from flowtilla.logs import LogLine
from flowtilla.names import check_name
from flowtilla.record import RunRecord
from flowtilla.scripts import CANCEL, RETRY
from flowtilla.settings import Settings
from flowtilla.states import RunState
from flowtilla.steps import Blocking, Steps, bridged, call, hashes, pipeline
from flowtilla.storage.logs import load_log
from flowtilla.storage.results import load_result
from flowtilla.untrusted import from_json, readable

_log = logging.getLogger(__name__)

#: Seconds one blocking read may take, below every sensible socket timeout.
_BLOCK = 1.0

#: How many runs `list_runs` looks at in one round trip.
_PAGE = 200


#: An entry of the stream of a run's results: its id and its fields.
Entry = tuple[bytes, dict[bytes, bytes]]


def fetch(run_id: str) -> Steps[RunRecord]:
    """Reads a run.

    Raises:
        RunNotFound: there is no such run.
        RunDamaged: it cannot be read.
    """
    return (yield from _look(run_id))[0]


def _look(run_id: str) -> Steps[tuple[RunRecord, Entry | None]]:
    """Reads a run and its newest result, in one round trip."""
    check_name(run_id, "run id")
    # The result is read first: one that comes after the state was read is then still ahead of whoever waits for it.
    newest, job, stages = yield from pipeline(
        lambda redis: redis.xrevrange(keys.results(run_id), count=1),
        lambda redis: redis.hgetall(keys.job(run_id)),
        lambda redis: redis.hgetall(keys.stages(run_id)),
    )
    record = RunRecord.parse(run_id, job, stages)
    if record is None:
        raise RunNotFound(
            f"there is no run {run_id}: it was never submitted here, or its retention has passed", run_id=run_id
        )
    return record, newest[0] if newest else None


def list_runs(namespace: str | None, state: RunState | None, limit: int) -> Steps[list[RunRecord]]:
    """Reads the newest runs, newest first; those that cannot be read are left out."""
    if namespace is not None:
        namespaces = [check_name(namespace, "namespace")]
    else:
        namespaces = sorted(
            name.decode(errors="replace") for name in (yield lambda redis: redis.smembers(keys.NAMESPACES))
        )
    found: list[RunRecord] = []
    for one in namespaces:
        found += yield from _newest(one, state, limit)
    return sorted(found, key=lambda run: run.created_at or datetime.min.replace(tzinfo=UTC), reverse=True)[:limit]


def _newest(namespace: str, state: RunState | None, limit: int) -> Steps[list[RunRecord]]:
    found: list[RunRecord] = []
    for start in count(step=_PAGE):
        ids = yield partial(_page, keys.runs(namespace), start)
        if not ids or len(found) >= limit:
            break
        names = [run_id.decode(errors="replace") for run_id in ids]
        read = yield from hashes([key for name in names for key in (keys.job(name), keys.stages(name))])
        records = (_parsed(*one) for one in zip(names, read[::2], read[1::2], strict=True))
        found += [record for record in records if record and state in (None, record.state)]
    return found[:limit]


def _parsed(run_id: str, job: dict[bytes, bytes], stages: dict[bytes, bytes]) -> RunRecord | None:
    try:
        return RunRecord.parse(run_id, job, stages)
    except RunDamaged as error:
        _log.warning("%s", error)
        return None


def _page(index: str, start: int, redis: Any) -> Any:
    return redis.zrevrange(index, start, start + _PAGE - 1)


def wait(run_id: str, timeout: float | None) -> Steps[RunRecord]:
    """Waits until a run has ended and reads it.

    Raises:
        RunNotFinished: it has not ended in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    newest: Entry | None = None
    while True:
        # Before looking: the usual case is a run that was just submitted.
        yield from bridged(partial(_next_result, run_id, newest, deadline), deadline)
        record, newest = yield from bridged(partial(_look, run_id), deadline)
        if record.state.ended:
            return record
        if deadline is not None and time.monotonic() >= deadline:
            raise _not_finished(record, timeout)


def result(run_id: str, timeout: float | None, settings: Settings) -> Steps[Any]:
    """Waits until a run has ended and reads its result.

    Raises:
        RunFailed: a stage raised.
        RunCancelled: somebody cancelled it.
        RunNotFinished: it has not ended in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    newest: Entry | None = None
    while True:
        found = yield from bridged(partial(_next_result, run_id, newest, deadline), deadline)
        if found is not None and _is_inline(found):
            return _inline(run_id, found)
        record, newest = yield from bridged(partial(_look, run_id), deadline)
        if record.state is RunState.FINISHED and newest is not None:
            if _is_inline(newest):
                return _inline(run_id, newest)
            return (yield Blocking(partial(_stored_result, record, record.result_reference or {}, settings)))
        if record.state.ended:
            raise record.to_error()
        if deadline is not None and time.monotonic() >= deadline:
            raise _not_finished(record, timeout)


def _next_result(run_id: str, after: Entry | None, deadline: float | None) -> Steps[Entry | None]:
    """Waits a while for a result that is newer than one, and returns the newest."""
    check_name(run_id, "run id")
    left = _BLOCK if deadline is None else min(_BLOCK, deadline - time.monotonic())
    streams = yield _read(keys.results(run_id), after[0] if after else "0", max(left, 0.001))
    return _entries(streams)[-1] if streams else None


def _is_inline(entry: Entry) -> bool:
    """Returns whether a result is that of a run that ended well, and holds the value itself."""
    return entry[1].get(b"type") == b"1" and b"stored" not in entry[1]


def _inline(run_id: str, entry: Entry) -> Any:
    # RQ leaves the field out for None.
    encoded = entry[1].get(b"return_value")
    with readable(run_id):
        return None if encoded is None else from_json(b64decode(encoded))


def _not_finished(record: RunRecord, timeout: float | None) -> RunNotFinished:
    done, total = record.progress
    return RunNotFinished(
        f"run {record.id} ({record.workflow}) has not ended in {timeout:g} s: it is {record.state}, "
        f"{done}/{total} stages; it goes on, and waiting again is fine",
        run_id=record.id,
    )


def cancel(run_id: str, settings: Settings) -> Steps[str]:
    """Asks for a run to be cancelled; returns `cancelled`, `asked`, or the RQ status of a run that had ended."""
    record = yield from fetch(run_id)
    keep = round(settings.retention)
    now = time.time()
    queue = record.queue
    answer = yield from call(
        CANCEL,
        (
            keys.job(run_id),
            keys.results(run_id),
            keys.registry("scheduled", queue),
            keys.registry("canceled", queue),
            keys.ENDED,
            *_kept(run_id),
        ),
        (
            run_id,
            queue,
            utcformat(datetime.fromtimestamp(now, UTC)),
            keep,
            round(now) + keep,
            keys.commands(""),
            f"{record.namespace}/{run_id}",
        ),
    )
    return bytes(answer or b"").decode(errors="replace")


def retry(run_id: str, at_front: bool) -> Steps[None]:
    """Queues a run again that failed, was cancelled or quarantined.

    Raises:
        RunError: it has not ended, or ended well.
    """
    record = yield from fetch(run_id)
    queue = record.queue
    status = yield from call(
        RETRY,
        (
            keys.job(run_id),
            keys.registry("failed", queue),
            keys.registry("canceled", queue),
            keys.ENDED,
            *_kept(run_id),
        ),
        (
            run_id,
            queue,
            "front" if at_front else "back",
            utcformat(datetime.now(UTC)),
            f"{record.namespace}/{run_id}",
        ),
    )
    if (status or b"").decode(errors="replace") not in ("failed", "canceled", "stopped"):
        raise RunError(
            f"run {run_id} is {record.state}: only a run that failed, was cancelled or quarantined can be retried",
            run_id=run_id,
        )


def _kept(run_id: str) -> tuple[str, ...]:
    """Returns the keys of what a run's attempts wrote besides its job."""
    return keys.stages(run_id), keys.values(run_id), keys.log(run_id)


def log_lines(run_id: str, after: str, follow: bool, settings: Settings) -> Steps[tuple[list[LogLine], str | None]]:
    """Reads the log lines that follow a position.

    Returns:
        The lines, and the position after them; None when there will be no more.
    """
    ask = partial(_log_lines, run_id, after, follow, settings)
    return (yield from bridged(ask, None) if follow else ask())


def _log_lines(run_id: str, after: str, follow: bool, settings: Settings) -> Steps[tuple[list[LogLine], str | None]]:
    if after == "":
        record = yield from fetch(run_id)
        if record.state.ended and not (yield lambda redis: redis.exists(keys.log(run_id))):
            return (yield from _stored_log(record, settings)), None
        after = "0"
    if not follow:
        entries = yield lambda redis: redis.xrange(keys.log(run_id), f"({after}" if after != "0" else "-")
        return list(_lines(run_id, entries)), None
    # The state is read before the lines, so that lines written before the end are all read.
    ended = (yield from fetch(run_id)).state.ended
    streams = yield _read(keys.log(run_id), after, 0.0 if ended else _BLOCK)
    found = _entries(streams) if streams else []
    if not found and ended:
        return [], None
    return list(_lines(run_id, found)), found[-1][0].decode() if found else after


def _stored_log(record: RunRecord, settings: Settings) -> Steps[list[LogLine]]:
    reference = record.log_reference
    # A run that wrote no line has no file.
    own = (settings.storage, record.namespace, record.id)
    text = "" if reference is None else (yield Blocking(lambda: load_log(*own, reference)))
    with readable(record.id):
        return [LogLine.from_json(record.id, line) for line in text.splitlines()]


def _stored_result(record: RunRecord, reference: Mapping[str, Any], settings: Settings) -> Any:
    """Reads a result that is not inline: of one final stage, or of each of several."""
    own = (settings.storage, record.namespace, record.id)
    parts = reference.get("stages")
    if isinstance(parts, dict):
        return {name: load_result(*own, one) for name, one in parts.items()}
    return load_result(*own, reference)


def _lines(run_id: str, entries: list[Entry]) -> Iterator[LogLine]:
    with readable(run_id):
        for _, fields in entries:
            yield LogLine.from_json(run_id, fields[b"line"])


def _entries(streams: Any) -> list[Entry]:
    """Returns the entries of the only stream that was read; the reply's form depends on the protocol's version."""
    if isinstance(streams, dict):
        (batches,) = streams.values()
        found: list[Entry] = batches[0]
        return found
    found = streams[0][1]
    return found


def _read(stream: str, after: str | bytes, seconds: float) -> Any:
    """Returns the step that reads a stream past a position, and waits for that at most so long."""
    return lambda redis: redis.xread({stream: after}, block=max(1, round(seconds * 1000)) if seconds else None)

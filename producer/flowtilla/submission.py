"""Turns what a caller asks for into the RQ job that will be enqueued."""

import json
import secrets
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from rq.utils import utcformat

from flowtilla import job, keys, message
from flowtilla.errors import MessageError
from flowtilla.limits import limit_fields
from flowtilla.loading import load_workflow
from flowtilla.names import check_name, check_namespace, run_id_in
from flowtilla.settings import Settings
from flowtilla.signing import sign_run
from flowtilla.units import parse_duration
from flowtilla.workflow import Workflow

#: Namespace of the run ids made from idempotency keys.
_IDEMPOTENCY = uuid.UUID("6b1f3a52-8d0e-4c0a-9a55-2f1d6a7e4c11")

#: RQ reads -1 as no limit: a run's own timeout is the engine's affair.
_NO_TIMEOUT = "-1"


@dataclass(frozen=True, slots=True)
class Submission:
    """One run, ready to be enqueued.

    Args:
        run_id: the run's id, which is the job's.
        queue, namespace: where it belongs.
        keys, args: what the submit script takes.
        most: how many runs may wait in the queue, and of the namespace in it; any number when None.
    """

    run_id: str
    queue: str
    namespace: str
    keys: tuple[str, ...]
    args: tuple[str | bytes | float, ...]
    most: tuple[int | None, int | None]


def prepare(
    settings: Settings,
    workflow: str | Path | Mapping[str, Any] | Workflow,
    input: Mapping[str, Any] | None = None,
    *,
    namespace: str | None = None,
    queue: str = "default",
    run_id: str | None = None,
    idempotency_key: str | None = None,
    timeout: float | str | None = None,
    retention: float | str | None = None,
    at_front: bool = False,
    at: datetime | None = None,
    delay: float | str | timedelta | None = None,
    tags: Iterable[str] = (),
    config: Mapping[str, Any] | None = None,
    concurrency: Mapping[str, int] | None = None,
) -> Submission:
    """Validates a run and returns what enqueues it; see `Client.submit`."""
    checked = load_workflow(workflow)
    default = settings.services.compute.default_namespace
    namespace = check_namespace(default if namespace is None else namespace)
    check_name(queue, "queue")
    run_id = _run_id(run_id, idempotency_key, namespace)
    when = _when(at, delay, at_front)
    data = message.encode(
        {
            "input": _mapping(input, "input"),
            "namespace": namespace,
            "config": _mapping(config, "config"),
            "timeout": None if timeout is None else _some_seconds(timeout, "timeout"),
            "retention": settings.retention if retention is None else _some_seconds(retention, "retention"),
        },
        checked.wire_json,
        settings.max_message,
    )
    now = time.time()
    stamp = utcformat(datetime.fromtimestamp(now, UTC))
    fields: dict[str, str | bytes | int] = {
        "created_at": stamp,
        "enqueued_at": stamp,
        "data": data,
        "origin": queue,
        "description": f"{checked.name} · namespace={namespace}",
        "status": "queued" if isinstance(when, str) else "scheduled",
        "timeout": _NO_TIMEOUT,
        # See flowtilla.job for these: they make a plain `rq worker` put the job back.
        "failure_callback_name": job.CALLBACK,
        "retries_left": job.REFUSALS,
        "retry_intervals": f"[{job.REFUSED_FOR}]",
        # Ours; RQ leaves fields alone that it does not know.
        "workflow": checked.name,
        "namespace": namespace,
        "stages": len(checked.stages),
    }
    if settings.signing.active is not None:
        body = message.unpack(data, settings.max_message)
        fields["signature"] = sign_run(settings.signing, run_id, namespace, queue, body)
    if marks := list(tags):
        fields["tags"] = json.dumps(marks)
    fields |= limit_fields(checked, namespace, concurrency)
    most = settings.limits.max_queued(queue, namespace)
    return Submission(
        run_id,
        queue,
        namespace,
        keys=(keys.job(run_id), keys.registry("scheduled", queue), keys.runs(namespace)),
        args=(run_id, queue, when, now, *(limit or "" for limit in most), *chain.from_iterable(fields.items())),
        most=most,
    )


def _run_id(run_id: str | None, idempotency_key: str | None, namespace: str) -> str:
    if run_id is not None and idempotency_key is not None:
        raise MessageError("give run_id or idempotency_key, not both: a key stands for an id")
    if idempotency_key is not None:
        own = uuid.uuid5(_IDEMPOTENCY, f"{namespace}/{idempotency_key}").hex
    else:
        own = secrets.token_hex(16) if run_id is None else run_id
    return run_id_in(namespace, own)


def _when(at: datetime | None, delay: float | str | timedelta | None, at_front: bool) -> str | float:
    if at is not None and delay is not None:
        raise MessageError("give at or delay, not both")
    if at is not None:
        return at.timestamp()
    if delay is not None:
        return time.time() + (delay.total_seconds() if isinstance(delay, timedelta) else _seconds(delay, "delay"))
    return "front" if at_front else "back"


def _some_seconds(value: float | str, what: str) -> float:
    if not (seconds := _seconds(value, what)):
        raise MessageError(f"{what}: 0 seconds are none: give more, or leave it out")
    return seconds


def _seconds(value: float | str, what: str) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise MessageError(f"{what}: {error}") from error


def _mapping(value: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise MessageError(f"{what} must be a mapping from names to values, not {value!r:.80}")
    return dict(value)

"""Turns what a caller asks for into the RQ job that will be enqueued."""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError
from rq.utils import utcformat

from flowtilla import job, keys, message
from flowtilla.errors import MessageError, QueueFull
from flowtilla.loading import load_workflow
from flowtilla.names import check_name, check_namespace, run_id_in
from flowtilla.scripts import SUBMIT
from flowtilla.settings import Settings
from flowtilla.signing import sign_run
from flowtilla.steps import Steps, pipeline
from flowtilla.units import parse_duration
from flowtilla.workflow import Workflow

#: Namespace of the run ids made from idempotency keys.
_IDEMPOTENCY = uuid.UUID("6b1f3a52-8d0e-4c0a-9a55-2f1d6a7e4c11")

#: How many limits of concurrency a run may have; the scripts heed no more.
_MOST_LIMITS = 16

#: What the script says when as many runs wait in the queue, or of the namespace in it, as may.
_OF_QUEUE, _OF_NAMESPACE = b"queue", b"namespace"

#: RQ reads -1 as no limit: a run's own timeout is the engine's affair.
_NO_TIMEOUT = "-1"


@dataclass(frozen=True, slots=True)
class Submission:
    """One run, ready to be enqueued.

    Args:
        run_id: the run's id, which is the job's.
        queue, namespace: where it belongs.
        keys, args: what the submit script takes.
        most: how many runs may wait, by what the script says when they do.
    """

    run_id: str
    queue: str
    namespace: str
    keys: tuple[str, ...]
    args: tuple[str | bytes | float, ...]
    most: Mapping[bytes, int | None]

    def refusal(self, reply: Any, queued: Sequence[str] = ()) -> QueueFull | None:
        """Returns the error in the script's reply, if it is one.

        Args:
            reply: the script's.
            queued: the runs submitted together with it that were queued.
        """
        if reply == _OF_QUEUE:
            who, setting = f"queue {self.queue!r} has", f"limits.queues.{self.queue}"
        elif reply == _OF_NAMESPACE:
            who = f"namespace {self.namespace!r} has, in queue {self.queue!r},"
            setting = f"limits.namespaces.{self.namespace}"
        else:
            return None
        most = self.most[reply]
        return QueueFull(
            f"run {self.run_id} was not queued: {who} {most} run{'' if most == 1 else 's'} waiting, as many as may "
            f"({setting}.max_queued): submit it again when some have begun, or add workers",
            queue=self.queue,
            namespace=self.namespace,
            queued=queued,
        )


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
    fields |= _limited(checked, namespace, concurrency)
    most = settings.limits.max_queued(queue, namespace)
    return Submission(
        run_id,
        queue,
        namespace,
        keys=(keys.job(run_id), keys.registry("scheduled", queue), keys.runs(namespace)),
        args=(run_id, queue, when, now, *(limit or "" for limit in most), *chain.from_iterable(fields.items())),
        most=dict(zip((_OF_QUEUE, _OF_NAMESPACE), most, strict=True)),
    )


def enqueue(submission: Submission) -> Steps[bool]:
    """Enqueues a run; returns whether it is new.

    Raises:
        QueueFull: as many runs wait as may.
    """
    commands = _commands([submission])
    try:
        replies = yield from pipeline(*commands)
    except NoScriptError:
        replies = yield from pipeline(_teach, *commands)
    if (full := submission.refusal(replies[-1])) is not None:
        raise full
    return bool(replies[-1])


def enqueue_many(submissions: Sequence[Submission]) -> Steps[list[bool]]:
    """Enqueues runs in one round trip; returns of each whether it is new.

    Raises:
        QueueFull: as many runs wait as may; the error names those that were queued.
    """
    if not submissions:
        return []
    # Taught first, and not when it is missed: that would be known only after the last command.
    replies = yield from pipeline(_teach, *_commands(submissions))
    outcomes = list(zip(submissions, replies[-len(submissions) :], strict=True))
    queued = [submission.run_id for submission, reply in outcomes if submission.refusal(reply) is None]
    for submission, reply in outcomes:
        if (full := submission.refusal(reply, queued)) is not None:
            raise full
    return [bool(reply) for _, reply in outcomes]


def _commands(submissions: Sequence[Submission]) -> list[Callable[[Any], None]]:
    queues = {keys.queue(submission.queue) for submission in submissions}
    namespaces = {submission.namespace for submission in submissions}
    return [
        partial(_register, keys.QUEUES, queues),
        partial(_register, keys.NAMESPACES, namespaces),
        *(partial(_submit, submission) for submission in submissions),
    ]


def _teach(connection: Any) -> None:
    connection.script_load(SUBMIT.text)


def _register(where: str, names: Iterable[str], connection: Any) -> None:
    connection.sadd(where, *names)


def _submit(submission: Submission, connection: Any) -> None:
    connection.evalsha(SUBMIT.sha, len(submission.keys), *submission.keys, *submission.args)


def _limited(workflow: Workflow, namespace: str, concurrency: Mapping[str, int] | None) -> dict[str, str]:
    """Returns the fields that limit how many runs like it may be in hand at once."""
    limits = {} if workflow.concurrency is None else {f"workflow:{namespace}:{workflow.name}": workflow.concurrency}
    for key, most in (concurrency or {}).items():
        if type(most) is not int or most < 1:
            raise MessageError(f"concurrency: {key!r} may have 1 run at once, or more, not {most!r}")
        limits[f"key:{check_name(key, 'concurrency key')}"] = most
    if len(limits) > _MOST_LIMITS:
        raise MessageError(f"concurrency: a run may have {_MOST_LIMITS} limits at most, and this one has {len(limits)}")
    if not limits:
        return {}
    first, most = next(iter(limits.items()))
    # RQ knows of one, and its tools heed that; the worker heeds all.
    known = {"rate_limit_key": first, "rate_limit_concurrency": str(most)}
    return {"limits": json.dumps(list(limits.items()), separators=(",", ":")), **known}


def _run_id(run_id: str | None, idempotency_key: str | None, namespace: str) -> str:
    if run_id is not None and idempotency_key is not None:
        raise MessageError("give run_id or idempotency_key, not both: a key stands for an id")
    if idempotency_key is not None:
        own = uuid.uuid5(_IDEMPOTENCY, f"{namespace}/{idempotency_key}").hex
    else:
        own = uuid.uuid4().hex if run_id is None else run_id
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

"""Puts submissions onto their queues."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from redis.exceptions import NoScriptError

from flowtilla import keys
from flowtilla.errors import QueueFull
from flowtilla.scripts import SUBMIT
from flowtilla.steps import Steps, pipeline
from flowtilla.submission import Submission


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
    return _is_new(submission, replies[-1])


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
    queued = [submission.run_id for submission, reply in outcomes if not isinstance(reply, bytes)]
    return [_is_new(submission, reply, queued) for submission, reply in outcomes]


def _is_new(submission: Submission, reply: int | bytes, queued: Sequence[str] = ()) -> bool:
    """Returns whether a run is new, by the script's reply; raises when that says who has as many waiting as may."""
    if isinstance(reply, int):
        return bool(reply)
    queue, namespace, of_queue = submission.queue, submission.namespace, reply == b"queue"
    who = f"queue {queue!r} has" if of_queue else f"namespace {namespace!r} has, in queue {queue!r},"
    setting = f"limits.queues.{queue}" if of_queue else f"limits.namespaces.{namespace}"
    most = submission.most[0 if of_queue else 1]
    raise QueueFull(
        f"run {submission.run_id} was not queued: {who} {most} run{'' if most == 1 else 's'} waiting, as many as may "
        f"({setting}.max_queued): submit it again when some have begun, or add workers",
        queue=queue,
        namespace=namespace,
        queued=queued,
    )


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

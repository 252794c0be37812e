"""What runs in Ray's processes: the remote function that runs every call of every stage."""

import contextlib
import logging
import pickle
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import ray

from flowtilla import objects
from flowtilla.cancellation import GRACE, Cancellation
from flowtilla.logs import LogLine
from flowtilla_executors import capture, remote
from flowtilla_executors.outcome import LIVES
from flowtilla_executors.ray.lines import Sender
from flowtilla_executors.ray.memory import RayMemory
from flowtilla_executors.ray.options import Need
from flowtilla_executors.values import lent

#: How a call ended: its pickled outcome; if lines were sent on before, behind their key, how many they were, and
#: whether more may have been.
Reply = bytes | tuple[str, int, bool, bytes]

#: What a call leaves.
Stored = bytes | remote.Kept

#: Bytes of a value up to which it is pickled here, which is faster than Ray's own way.
_SMALL = 64 * 1024


class Tasks:
    """The remote function, by what a call needs.

    Args:
        tasks_per_worker: calls that a process runs until another takes its place, or None.
    """

    def __init__(self, tasks_per_worker: int | None) -> None:
        # One for all: Ray keeps every function that it was ever given. And one for calls with a GPU, which have a
        # process each, as Ray has it for such tasks: what a process allocated on a GPU goes only with it.
        self._function = _remote(tasks_per_worker or 0)
        self._with_gpu = _remote(tasks_per_worker or 1)
        self._by_need: dict[Need, Any] = {}

    def for_need(self, need: Need) -> Any:
        """Returns the function, to be called with `.remote`.

        Raises:
            ValueError: Ray cannot meet such a need.
        """
        if need not in self._by_need:
            amounts = {"num_cpus": need.cpus, "num_gpus": need.gpus, "memory": need.memory or None}
            function = self._with_gpu if need.gpus else self._function
            self._by_need[need] = function.options(**amounts, resources=dict(need.resources))
        return self._by_need[need]


def _remote(max_calls: int) -> Any:
    decorate: Any = ray.remote
    return decorate(num_returns=2, max_retries=LIVES - 1, max_calls=max_calls)(run_call)


def run_call(payload: bytes, *parents: Stored) -> tuple[Stored, Reply]:
    """Runs a call.

    Args:
        payload: the name of the mailbox for its lines, the call's number and the call, pickled; one, since each costs.
        parents: what the calls it refers to left.

    Returns:
        What it leaves, and how it ended.
    """
    _prepare()
    mailbox, number, call = pickle.loads(payload)
    sender = Sender(mailbox, number)
    if call.timeout is not None:
        sender.began()
    cancellation = Cancellation(sender.hear)
    kept, outcome = remote.run(call, [unstored(parent) for parent in parents], lent, sender.emit, cancellation)
    if cancellation.requested:
        _leave(sender, outcome.logs)
    content = pickle.dumps(outcome, protocol=5)
    return _stored(kept), (sender.key, sender.sent, sender.unsure, content) if sender.used else content


def unstored(stored: Stored) -> remote.Kept:
    """Returns what a call left."""
    kept: remote.Kept = pickle.loads(stored) if isinstance(stored, bytes) else stored
    return kept


def _leave(sender: Sender, last_words: Sequence[LogLine]) -> None:
    """Says that the stage has ended by itself when it was to stop, and waits for the end of this process."""
    with contextlib.suppress(OSError):
        sender.emit(last_words)
    sender.stopped()
    time.sleep(2 * GRACE)


def _stored(kept: remote.Kept) -> Stored:
    """Returns what a call leaves as Ray takes it best: little as bytes, much as an object whose buffers it moves."""
    return pickle.dumps(kept, protocol=5) if kept.value is None or kept.value.size <= _SMALL else kept


@cache
def _prepare() -> None:
    """Makes this process one that stages run in; once, since Ray uses it again."""
    logging.getLogger().setLevel(logging.INFO)
    capture.install()
    objects.use_memory(RayMemory())

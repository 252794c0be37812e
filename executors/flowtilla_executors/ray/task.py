"""What runs in Ray's processes: the one remote function, which runs every call of every stage."""

import logging
import pickle
from functools import cache
from typing import Any

import ray

from flowtilla import objects
from flowtilla_executors import capture, remote
from flowtilla_executors.outcome import LIVES
from flowtilla_executors.ray.lines import Sender
from flowtilla_executors.ray.memory import RayMemory
from flowtilla_executors.ray.options import Need
from flowtilla_executors.values import lent

#: How a call came back: the key of its lines, how many of them were sent on, whether more may have been, its outcome.
Reply = tuple[str, int, bool, bytes]


class Tasks:
    """The remote function, by what a call needs.

    Args:
        tasks_per_worker: calls that a process runs until another takes its place, or None.
    """

    def __init__(self, tasks_per_worker: int | None) -> None:
        # One for all: Ray keeps every function that it was ever given.
        limit = {} if tasks_per_worker is None else {"max_calls": tasks_per_worker}
        decorate: Any = ray.remote
        self._function = decorate(num_returns=2, max_retries=LIVES - 1, **limit)(run_call)
        self._by_need: dict[Need, Any] = {}

    def for_need(self, need: Need) -> Any:
        """Returns the function, to be called with `.remote`.

        Raises:
            ValueError: Ray cannot meet such a need.
        """
        if need not in self._by_need:
            amounts = {"num_cpus": need.cpus, "num_gpus": need.gpus, "memory": need.memory or None}
            self._by_need[need] = self._function.options(**amounts, resources=dict(need.resources))
        return self._by_need[need]


def run_call(mailbox: str, number: int, payload: bytes, timed: bool, *parents: remote.Kept) -> tuple[Any, Reply]:
    """Runs a call.

    Args:
        mailbox: takes its lines while it runs.
        number: what the driver process calls it.
        payload: the pickled call.
        timed: whether the driver process wants to know when it begins.
        parents: what the calls it refers to left.

    Returns:
        What it leaves, and how it ended.
    """
    _prepare()
    sender = Sender(mailbox, number)
    if timed:
        sender.began()
    kept, outcome = remote.run(pickle.loads(payload), parents, lent, sender.emit)
    return kept, (sender.key, sender.sent, sender.unsure, pickle.dumps(outcome, protocol=5))


@cache
def _prepare() -> None:
    """Makes this process one that stages run in; once, since Ray uses it again."""
    logging.getLogger().setLevel(logging.INFO)
    capture.install()
    objects.use_memory(RayMemory())

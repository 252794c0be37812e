"""What a task of a cluster does: run a call, and leave its value where the calls that follow find it."""

import os
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle

from flowtilla.cancellation import Cancellation
from flowtilla.logs import LogLine
from flowtilla_executors.call import Call
from flowtilla_executors.invoke import invoke
from flowtilla_executors.outcome import Outcome
from flowtilla_executors.recorder import host
from flowtilla_executors.values import Snapshot, snapshot


@dataclass(frozen=True)
class Kept:
    """What a call leaves in the cluster.

    Args:
        value: what it returned; None when it failed or did not run.
        visible: whether all that it stored can be seen, for it stored nothing that awaits its commit.
    """

    value: Snapshot | None
    visible: bool

    def __sizeof__(self) -> int:
        # What a scheduler believes that it takes.
        return object.__sizeof__(self) + getattr(self.value, "size", 0)


def dumped(content: Any) -> bytes:
    """Returns a call, and what belongs to it, as it travels.

    Raises:
        Exception: something in it cannot be pickled.
    """
    try:
        return pickle.dumps(content, protocol=5)
    except Exception:
        payload: bytes = cloudpickle.dumps(content, protocol=5)
        return payload


def run(
    call: Call,
    parents: Sequence[Kept],
    keep: Callable[[Any], Snapshot] = snapshot,
    emit: Callable[[Sequence[LogLine]], None] | None = None,
    cancellation: Cancellation | None = None,
) -> tuple[Kept, Outcome]:
    """Runs a call to its end, however it ends.

    Args:
        call: what to run.
        parents: what the calls it refers to left.
        keep, emit, cancellation: as `invoke` has them.

    Returns:
        What it leaves, and how it ended.
    """
    if call.ahead and not all(parent.value is not None and parent.visible for parent in parents):
        now = time.time()
        return Kept(None, False), Outcome(now, now, host(), os.getpid(), early=True)
    values = [parent.value for parent in parents if parent.value is not None]
    kept, outcome = invoke(call, values, keep, emit, cancellation)
    return Kept(kept, not outcome.artifacts), outcome

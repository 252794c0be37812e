"""The outcomes of calls that did not come to their own end."""

import asyncio
import os
import signal
import time
from dataclasses import replace

from flowtilla.errors import StageLost, StageTimeout, ValueLost
from flowtilla_executors.call import Call
from flowtilla_executors.outcome import Failure, Outcome
from flowtilla_executors.recorder import host


def failed(failure: Failure, started: float | None = None) -> Outcome:
    """Returns the outcome of a call that failed now.

    Args:
        failure: why.
        started: when it began, in seconds since the epoch; None when it did not.
    """
    now = time.time()
    return Outcome(started or now, now, host(), os.getpid(), failure=failure)


def cancelled(call: Call, why: str, started: float | None = None) -> Outcome:
    """Returns the outcome of a call that somebody cancelled."""
    failure = Failure.of(asyncio.CancelledError(f"stage {_name(call)} was cancelled: {why}"))
    name = "asyncio.CancelledError"  # which is its public name
    return failed(replace(failure, error=name, bases=(name, *failure.bases)), started)


def timed_out(call: Call, started: float | None = None) -> Outcome:
    """Returns the outcome of a call that took too long."""
    limit = call.timeout or 0.0
    error = StageTimeout(f"stage {_name(call)} took longer than its timeout of {limit:g}s: raise it, or do less")
    return failed(Failure.of(error), started)


def lost(call: Call, how: str, started: float | None = None) -> Outcome:
    """Returns the outcome of a call whose processes died."""
    error = StageLost(f"the process that ran stage {_name(call)} died: {how}")
    return failed(Failure.of(error, lost=True), started)


def value_lost(call: Call, how: str) -> Outcome:
    """Returns the outcome of a call that the cluster dropped, or that takes a value which is gone from it."""
    return failed(Failure.of(ValueLost(f"stage {_name(call)} cannot go on where it is: {how}")))


def ending(code: int) -> str:
    """Returns how a process ended, in words; `code` is as `multiprocessing` has it."""
    if code >= 0:
        return f"it ended itself with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", perhaps because memory ran out" if name == "SIGKILL" else ""
    return f"{name} ended it{hint}"


def _name(call: Call) -> str:
    return f"{call.context.stage!r} of run {call.context.run_id}"

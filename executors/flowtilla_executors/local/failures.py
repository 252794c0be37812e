"""The outcomes of calls that did not come to their own end."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from flowtilla.errors import StageLost, StageTimeout
from flowtilla_executors.local.handle import Handle
from flowtilla_executors.outcome import Failure, Outcome
from flowtilla_executors.recorder import host
from flowtilla_executors.values import Snapshot

#: Told once of every call that takes no more room, from any thread; the outcome is None when it came before.
Ended = Callable[[Handle, Snapshot | None, Outcome | None], None]


def failed(handle: Handle, failure: Failure) -> Outcome:
    """Returns the outcome of a call that failed now."""
    now = time.time()
    return Outcome(handle.started or now, now, host(), os.getpid(), failure=failure)


def cancelled(handle: Handle, why: str) -> Outcome:
    """Returns the outcome of a call that somebody cancelled."""
    failure = Failure.of(asyncio.CancelledError(f"stage {_name(handle)} was cancelled: {why}"))
    name = "asyncio.CancelledError"  # which is its public name
    return failed(handle, replace(failure, error=name, bases=(name, *failure.bases)))


def timed_out(handle: Handle) -> Outcome:
    """Returns the outcome of a call that took too long."""
    limit = handle.call.timeout or 0.0
    error = StageTimeout(f"stage {_name(handle)} took longer than its timeout of {limit:g}s: raise it, or do less")
    return failed(handle, Failure.of(error))


def lost(handle: Handle, how: str) -> Outcome:
    """Returns the outcome of a call whose process died."""
    error = StageLost(f"the process that ran stage {_name(handle)} died: {how}")
    return failed(handle, Failure.of(error, lost=True))


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


def _name(handle: Handle) -> str:
    return f"{handle.call.context.stage!r} of run {handle.call.context.run_id}"

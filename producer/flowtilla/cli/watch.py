"""Watches a run until it ends."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from flowtilla import steps
from flowtilla.cli.output import console, note
from flowtilla.cli.progress import Progress, progress_on
from flowtilla.errors import FlowtillaError, QueueUnavailable, RunNotFinished

if TYPE_CHECKING:
    from rich.console import Console

    from flowtilla.record import RunRecord
    from flowtilla.run import Run

#: Seconds between two looks at the run.
_POLL = 0.25


@contextmanager
def come_back(run_id: str) -> Iterator[None]:
    """Says, when watching ends before the run, that the run goes on, and how to come back to it."""
    try:
        yield
    except (KeyboardInterrupt, QueueUnavailable, RunNotFinished):
        note(f"run {run_id} is left as it is; come back with: flowtilla status {run_id}")
        raise


def watch(run: "Run", progress: bool, follow: bool, timeout: float | None) -> "RunRecord":
    """Waits until a run has ended, showing what it does.

    Args:
        run: the run.
        progress: show each stage's progress on standard error.
        follow: print the log as it comes; on standard error too when progress is shown there.
        timeout: seconds, or None to wait for ever.

    Raises:
        RunNotFinished: it has not ended in time.
    """
    screen = console(error=True)
    with progress_on(screen, progress) as shown:
        reader = threading.Thread(target=_print_log, args=(run, screen if progress else console()), daemon=True)
        if follow:
            reader.start()
        record = _until_ended(run, shown, timeout)
        if follow:
            reader.join()
    return record


def _until_ended(run: "Run", shown: Progress, timeout: float | None) -> "RunRecord":
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        record = _read(run, deadline)
        shown.show(record)
        if record.state.ended:
            return record
        left = _POLL if deadline is None else min(_POLL, deadline - time.monotonic())
        if left <= 0:
            raise RunNotFinished(f"run {run.id} has not ended in {timeout:g} s: it is {record.state}", run_id=run.id)
        # That Redis is away reading says, or bears.
        with suppress(RunNotFinished, QueueUnavailable):
            run.wait(left)


def _read(run: "Run", deadline: float | None) -> "RunRecord":
    """Reads a run, and bears an outage of Redis as who waits for the run does."""
    over = time.monotonic() + steps.OUTAGE
    while True:
        try:
            return run.record
        except QueueUnavailable:
            if time.monotonic() >= min(over, deadline or over):
                raise
            time.sleep(_POLL)


def _print_log(run: "Run", screen: "Console") -> None:
    try:
        for line in run.logs(follow=True):
            screen.print(str(line))
    except FlowtillaError as error:
        note(f"the log ends here: {error}")

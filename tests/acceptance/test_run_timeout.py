"""The timeout of a run counts from when it first began, over all its attempts and the time between them."""

import signal
import time

import pytest

import flowtilla
from fleet import Fleet, until
from flowtilla.errors import RunFailed

WHY = "the run took longer than its timeout of {:g} s"


def first_attempt_dies(fleet: Fleet, timeout: float) -> tuple[flowtilla.Run, float]:
    """Lets the worker of a run be killed; returns the run, and when it began at the earliest."""
    fleet.start("one")
    until(lambda: [worker.ready for worker in fleet.client.workers()] == [True])
    at = time.monotonic()
    run = fleet.submit({"name": "gate"}, timeout=timeout)
    fleet.begun()
    fleet.kill("one", signal.SIGKILL)
    return run, at


def test_a_later_attempt_has_what_is_left(fleet: Fleet) -> None:
    """Not the whole of it again."""
    run, at = first_attempt_dies(fleet, timeout=15)
    fleet.start("two")
    fleet.begun(attempt=2)
    second = time.monotonic()

    with pytest.raises(RunFailed, match=WHY.format(15)):
        run.result(timeout=60)

    assert time.monotonic() - at > 14
    assert time.monotonic() - second < 15 - 1
    assert run.stages["gate"].state == "cancelled"


def test_the_time_between_attempts_counts(fleet: Fleet) -> None:
    """A run whose time was over while it waited does not begin again; `retry` gives it all its time anew."""
    run, at = first_attempt_dies(fleet, timeout=12)
    until(lambda: time.monotonic() - at > 14)
    fleet.start("two")

    with pytest.raises(RunFailed, match=WHY.format(12)):
        run.result(timeout=60)
    assert not (fleet.folder / "begun-2").exists()

    fleet.open_gate()
    run.retry()
    assert run.result(timeout=60) == str(fleet.folder)
    assert run.record.attempt == 3

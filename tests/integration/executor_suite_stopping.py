"""What every executor must do when a call is stopped: cancelled, late, or over its time."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

import executor_functions as f
from executor_bench import Bench, call, context, over
from flowtilla.cancellation import GRACE


def test_cancelling_stops_a_running_call(executor, tmp_path):
    """The outcome is there at once, and the stage stops."""
    file = tmp_path / "beats"
    handle = executor.submit(call(f.beat, str(file)))
    executor.until(lambda: file.exists() and file.stat().st_size, "the stage did not begin")

    executor.cancel(handle)
    failure = executor.outcome(handle).failure

    assert failure.error == "asyncio.CancelledError"
    assert "CancelledError" in failure.bases
    sizes = []
    executor.until(lambda: sizes.append(file.stat().st_size) or sizes[-30:] == sizes[-1:] * 30, "the stage goes on")
    assert executor.value(call(f.give, 1)) == 1


def test_cancelling_a_call_that_waits(executor, tmp_path):
    """It never runs, and those behind it do."""
    busy = [executor.submit(call(f.wait_for, str(tmp_path / "go"))) for _ in range(2)]
    waiting = executor.submit(call(f.note, str(tmp_path / "ran"), "it ran"))
    behind = executor.submit(call(f.give, 5))

    executor.cancel(waiting)
    assert executor.outcome(waiting).failure.error == "asyncio.CancelledError"
    (tmp_path / "go").touch()

    assert executor.outcome(behind).value == 5
    assert all(executor.outcome(each).failure is None for each in busy)
    assert not (tmp_path / "ran").exists()


def test_cancelling_what_ended_changes_nothing(executor):
    """The outcome stays."""
    handle = executor.finished(call(f.give, 1))
    executor.cancel(handle)

    assert executor.outcome(handle).value == 1


def test_a_timeout_fails_the_call(executor, tmp_path):
    """It ends as StageTimeout about when it should, and the executor goes on."""
    handle = executor.submit(call(f.start_and_wait, str(tmp_path / "started"), timeout=0.3, context=context("slow")))
    failure = executor.outcome(handle).failure

    assert failure.error == "flowtilla.errors.StageTimeout"
    assert "TimeoutError" in failure.bases
    assert "'slow'" in failure.message
    assert "0.3s" in failure.message
    assert (tmp_path / "started").exists()
    assert executor.value(call(f.give, 1)) == 1


class Watched:
    """A call of a stage that tells which process runs it, and that it has left the stage.

    Args:
        bench: runs it.
        file: where the stage tells.
        function: the stage.
        args, options: of its call.
    """

    def __init__(self, bench: Bench, file: Path, function: Any, *args: Any, **options: Any) -> None:
        self.bench, self.file = bench, file
        self.handle = bench.submit(call(function, str(file), *args, **options))

    def begun(self) -> "Watched":
        self.bench.until(self.said, "the stage did not begin")
        return self

    def waits(self) -> "Watched":
        """Waits until the stage has looked, or registered its clean-up, and the executor knows that."""
        self.bench.until(lambda: "waits" in self.lines(), "the stage did not begin")
        return self

    def said(self) -> list[str]:
        return self.file.read_text().split() if self.file.exists() else []

    @property
    def left(self) -> bool:
        return "left" in self.said()

    @property
    def gone(self) -> bool:
        """Whether nothing of it runs: its process is gone, or its thread has left the stage."""
        return self.left or not alive(int(self.said()[0]))

    def cancel(self, within: float = 5.0) -> float:
        """Cancels it; nothing of it runs then. Returns how long that took."""
        begun = time.monotonic()
        self.bench.cancel(self.handle)
        took = time.monotonic() - begun
        # Ray says that a task has ended a few milliseconds before its process has.
        end = time.monotonic() + 0.5
        self.bench.until(lambda: self.gone or time.monotonic() > end, "time stands still")
        assert self.gone
        assert took < within
        return took

    def lines(self) -> list[str]:
        return [line.message for line in self.bench.lines]


def alive(pid: int) -> bool:
    """Returns whether a process runs; one that waits for its parent to notice its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_cancelled_stage_that_looks_has_time_to_end(executor, tmp_path):
    """It tidies up; what it says then is heard, and cancel returns when it has ended."""
    stage = Watched(executor, tmp_path / "stage", f.look_until_cancelled).waits()

    took = stage.cancel()

    assert stage.left
    assert took >= 0.2
    assert executor.outcome(stage.handle).failure.error == "asyncio.CancelledError"
    executor.until(lambda: "tidied up" in stage.lines(), "its last words are lost")


def test_a_cancelled_stage_that_never_looks_is_not_waited_for(executor, backend, tmp_path):
    """It is killed, or interrupted, at once."""
    if backend.force is None:
        pytest.skip("it cannot stop a stage that does not want to")
    stage = Watched(executor, tmp_path / "stage", f.never_look).begun()

    stage.cancel(within=GRACE)

    assert stage.left == (backend.force == "interrupt")


def test_a_cancelled_stage_that_does_not_heed_what_it_sees_is_stopped(executor, backend, tmp_path):
    """When its time is over, native code that holds the interpreter's lock too."""
    if backend.force != "kill":
        pytest.skip("it cannot kill a stage")
    stage = Watched(executor, tmp_path / "stage", f.look_once_and_hold_the_gil).waits()
    executor.run(asyncio.sleep(1.2))

    assert stage.cancel() > GRACE - 0.2

    assert not stage.left


def test_clean_up_runs_when_a_stage_is_cancelled(executor, tmp_path):
    """Once, the last registered first, in the stage's process, as the stage; what fails keeps no other from running."""
    stage = Watched(executor, tmp_path / "stage", f.wait_for_clean_up).waits()

    stage.cancel()

    assert stage.left
    executor.until(lambda: any("clean-up of" in line for line in stage.lines()), "its last words are lost")
    said = [line for line in stage.lines() if "clean-up" in line]
    assert said[0].startswith("an on_cancel callback failed\nTraceback")
    assert said[1:] == [f"clean-up of None in {stage.said()[0]}"]


def test_clean_up_is_that_of_the_item_that_runs(executor, tmp_path):
    """What the items before it registered went with them, and those behind it do not begin."""
    items = over(["first", "second", "last", "never"], place="x")
    stage = Watched(executor, tmp_path / "stage", f.wait_for_clean_up, items=items).waits()

    stage.cancel()

    executor.until(lambda: any("clean-up of" in line for line in stage.lines()), "its last words are lost")
    assert [line for line in stage.lines() if "clean-up of" in line] == [f"clean-up of 2 in {stage.said()[0]}"]


def test_an_async_stage_is_told_by_its_clean_up(executor, tmp_path):
    """Which ends its task on its loop."""
    stage = Watched(executor, tmp_path / "stage", f.wait_for_clean_up_async).waits()

    stage.cancel()

    assert stage.left


def test_clean_up_that_hangs_ends_with_its_process(executor, backend, tmp_path):
    """Where there is one to kill; else cancel does not return before the clean-up does."""
    released = tmp_path / "released"
    stage = Watched(executor, tmp_path / "stage", f.clean_up_for_ever, str(released)).waits()
    if backend.force == "kill":
        stage.cancel()
        return

    async def still_waits() -> bool:
        cancelling = asyncio.ensure_future(executor.executor.cancel(stage.handle))
        done, _ = await asyncio.wait({cancelling}, timeout=GRACE + 1)
        released.touch()
        await cancelling
        return not done

    assert executor.run(still_waits())


@pytest.mark.parametrize("function", [f.look_until_cancelled, f.never_look])
def test_a_stage_that_takes_too_long_is_stopped_too(executor, backend, tmp_path, function):
    """Its outcome is there at once, and cancel returns when it has ended, as with any other."""
    if backend.force is None and function is f.never_look:
        pytest.skip("it cannot stop a stage that does not want to")
    stage = Watched(executor, tmp_path / "stage", function, timeout=2)

    assert executor.outcome(stage.handle).failure.error == "flowtilla.errors.StageTimeout"
    stage.cancel()

    assert stage.left == (function is f.look_until_cancelled or backend.force == "interrupt")
    assert executor.value(call(f.give, 1)) == 1


def test_many_are_cancelled_in_the_time_of_one(executor, tmp_path):
    """Those that run, those that wait for room, and those that wait for them."""
    running = [Watched(executor, tmp_path / str(number), f.look_until_cancelled) for number in range(2)]
    executor.until(lambda: running[0].lines().count("waits") == 2, "the stages did not begin")
    waiting = [Watched(executor, tmp_path / f"w{number}", f.look_until_cancelled) for number in range(20)]
    begun = time.monotonic()

    async def cancel_all() -> None:
        await asyncio.gather(*[executor.executor.cancel(each.handle) for each in running + waiting])

    executor.run(cancel_all())

    assert time.monotonic() - begun < 5
    assert all(each.left for each in running)
    assert not any(each.said() for each in waiting)


def test_waiting_does_not_count_as_running(executor, tmp_path):
    """A timeout begins when the call does."""
    busy = [executor.submit(call(f.wait_for, str(tmp_path / "go"))) for _ in range(2)]
    quick = executor.submit(call(f.give, 1, timeout=0.5))
    end = time.monotonic() + 0.8
    executor.until(lambda: time.monotonic() > end, "time stands still")
    (tmp_path / "go").touch()

    assert executor.outcome(quick).value == 1
    assert all(executor.outcome(each).failure is None for each in busy)

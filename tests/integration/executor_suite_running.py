"""What every executor must do while calls run: logs, stopping, room, memory, and its own life."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import executor_functions as f
from executor_bench import PATIENCE, Bench, call, context, over
from flowtilla.cancellation import GRACE
from flowtilla.errors import ExecutorClosed, ResourcesUnavailable
from flowtilla_executors import Outcome

# Context and logs


def test_the_context_says_where_a_stage_runs(executor):
    """Run, stage, item, executor, input, config and deadline."""
    here = context("looking", _input={"n": 1}, _config={"c": 2})

    simple = executor.value(call(f.look_around, context=here, timeout=60))
    mapped = executor.value(call(f.look_around, context=here, items=over(["a", "b"], indexes=[4, 5])))

    assert simple[:-1] == ["run1", "looking", None, "local", {"n": 1}, {"c": 2}]
    assert 0 < simple[-1] <= 60
    assert [each[2] for each in mapped] == [4, 5]
    assert mapped[0][-1] is None


def test_everything_written_becomes_lines(executor, capsys):
    """print, stderr, any logger and an unfinished line, in order and attributed."""
    lines = executor.result(call(f.talk, context=context("talker"))).logs

    said = [(line.source, line.level, line.message) for line in lines]
    assert said == [
        ("stdout", "INFO", "from print"),
        ("stderr", "WARNING", "from stderr"),
        ("executor_functions", "WARNING", "from a module's logger"),
        ("flowtilla.stage.talker", "INFO", "from the stage's logger"),
        ("stdout", "INFO", "no newline"),
    ]
    assert {(line.run_id, line.stage, line.item, line.attempt) for line in lines} == {("run1", "talker", None, 1)}
    assert all(0 < time.time() - line.time < PATIENCE and line.host for line in lines)
    assert "from print" not in capsys.readouterr().out


def test_a_stage_may_configure_logging(executor):
    """What it and later stages log is recorded all the same."""
    executor.finished(call(f.configure_logging))
    lines = executor.result(call(f.log_error)).logs

    assert [line.level for line in lines] == ["ERROR"]


def test_lines_name_their_item(executor):
    """An item's unfinished line ends with it."""
    lines = executor.result(call(f.talk_of, items=over(["a", "b"]))).logs

    assert [(line.item, line.message) for line in lines] == [(0, "item a"), (1, "item b")]


def test_odd_output_is_readable(executor):
    """Overwritten, endless, broken and empty lines."""
    messages = [line.message for line in executor.result(call(f.talk_oddly)).logs]

    assert messages[0] == "100%"
    assert messages[1] == "x" * 16 * 1024 + "…"
    assert messages[2:] == ["half \\ud800 pair", "a", "", "b"]


def test_a_thread_of_a_stage_belongs_to_it(executor):
    """What it prints is the stage's."""
    assert [line.message for line in executor.result(call(f.talk_in_thread)).logs] == ["from a thread"]


def test_a_logged_exception_has_its_traceback(executor):
    """In one line of the log, at its level."""
    (line,) = executor.result(call(f.log_error)).logs

    assert line.level == "ERROR"
    assert line.message.startswith("no luck\nTraceback")
    assert line.message.endswith("ZeroDivisionError: division by zero")


def test_lines_are_seen_while_a_stage_runs(executor, tmp_path):
    """They come to the sink, once."""
    handle = executor.submit(call(f.talk_then_wait, str(tmp_path / "started")))
    executor.until(lambda: executor.lines, "no line came while the stage ran")
    assert (tmp_path / "started").exists()

    executor.cancel(handle)

    assert [line.message for line in executor.lines] == ["before"]
    assert executor.outcome(handle).logs == ()


# Stopping


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


# Room


def test_calls_run_side_by_side(executor, tmp_path):
    """As many as there are cpus."""
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    handles = [executor.submit(call(f.meet, one, other)), executor.submit(call(f.meet, other, one))]

    assert [executor.outcome(handle).value for handle in handles] == [True, True]


def test_the_highest_priority_begins_first(executor, tmp_path):
    """Among calls that wait, where the back end has priorities; nobody is passed over otherwise."""
    go, file = tmp_path / "go", tmp_path / "order"
    busy = [executor.submit(call(f.wait_for, str(go), str(tmp_path / name))) for name in ("one", "two")]
    executor.until(lambda: (tmp_path / "one").exists() and (tmp_path / "two").exists(), "they did not begin")
    lock = {"resources": {"wheels": 1}}  # one at a time
    waiting = [executor.submit(call(f.note, str(file), str(p), priority=p, **lock)) for p in (0, -1, 5, 1)]
    executor.run(asyncio.sleep(0.5))  # until all of them have reached the cluster
    go.touch()

    assert all(executor.outcome(handle).failure is None for handle in busy + waiting)
    order = file.read_text().split()
    assert order == ["5", "1", "0", "-1"] if executor.executor.prioritizes else sorted(order) == ["-1", "0", "1", "5"]


def test_logical_resources_are_counted(executor, tmp_path):
    """Of two calls that need the only wheel, the second waits; one that needs none passes."""
    go, file = tmp_path / "go", tmp_path / "order"
    first = executor.submit(call(f.wait_for, str(go), resources={"wheels": 1}, cpus=0.5))
    second = executor.submit(call(f.note, str(file), "second", resources={"wheels": 1}, cpus=0.5))
    passing = executor.submit(call(f.note, str(file), "passing", resources={"doors": 1}, cpus=0.5))

    executor.outcome(passing)
    assert file.read_text() == "passing\n"
    go.touch()
    executor.outcome(first), executor.outcome(second)

    assert file.read_text() == "passing\nsecond\n"


@pytest.mark.parametrize("need", [{"cpus": 3.0}, {"resources": {"wheels": 2.0}}, {"resources": {"wings": 1.0}}])
def test_a_request_nobody_could_meet_is_refused(executor, need):
    """At once, saying what was asked and what there is."""
    with pytest.raises(ResourcesUnavailable, match=r"'greedy' asks for .*, and the \w+ executor has .*wheels=1"):
        executor.submit(call(f.give, context=context("greedy"), **need))


def test_many_calls_at_once(executor):
    """Each gets its own outcome, however many wait for it."""
    handles = [executor.submit(call(f.give, number)) for number in range(300)]

    async def all_of_them() -> list[Outcome]:
        return await asyncio.gather(*[executor.executor.outcome(handle) for handle in handles * 2])

    assert [outcome.value for outcome in executor.run(all_of_them())] == [*range(300), *range(300)]


def test_giving_up_waiting_leaves_others_waiting(executor, tmp_path):
    """One waiter that is cancelled does not cancel the call."""
    handle = executor.submit(call(f.wait_for, str(tmp_path / "go")))

    async def give_up() -> Outcome:
        impatient = asyncio.create_task(executor.executor.outcome(handle))
        patient = asyncio.create_task(executor.executor.outcome(handle))
        await asyncio.sleep(0.05)
        impatient.cancel()
        (tmp_path / "go").touch()
        return await patient

    assert executor.run(give_up()).failure is None


# Objects in memory


def test_objects_are_shared_by_key(executor):
    """What one stage puts another gets, as a copy."""
    executor.finished(call(f.put_object, "shared", [1]))
    executor.finished(call(f.change_object, "shared"))

    assert executor.value(call(f.get_object, "shared")) == [1]
    executor.finished(call(f.put_object, "shared", [2]))
    assert executor.value(call(f.get_object, "shared")) == [2]
    assert executor.value(call(f.get_object, "shared", context=context(namespace="space"))) == [2]
    elsewhere = executor.result(call(f.get_object, "shared", context=context(namespace="elsewhere")))
    assert elsewhere.failure.error == "flowtilla.errors.ObjectNotFound"
    assert executor.value(call(f.drop_object, "shared")) == [True, True, False]


# Life


def test_environment_variables_reach_the_stages(fresh):
    """Numbers too, as a configuration file has them."""
    bench = fresh(env_vars={"OMP_NUM_THREADS": 1, "FLOWTILLA_TEST": "yes"})

    assert bench.value(call(f.environment, "OMP_NUM_THREADS")) == "1"
    assert bench.value(call(f.environment, "FLOWTILLA_TEST")) == "yes"


def test_a_closed_executor_refuses(backend):
    """Before it starts and after it closed."""

    async def live() -> None:
        executor = backend.make()
        with pytest.raises(ExecutorClosed):
            executor.submit(call(f.give))
        async with executor:
            assert executor.info().kind == backend.kind
            assert executor.info().cpus == 2
        with pytest.raises(ExecutorClosed):
            executor.submit(call(f.give))
        await executor.close()

    asyncio.run(live())


def test_closing_ends_what_runs(fresh, tmp_path):
    """Running and waiting calls have an outcome."""
    bench = fresh()
    files = [tmp_path / str(number) for number in range(2)]
    running = [bench.submit(call(f.start_and_wait, str(file))) for file in files]
    waiting = [bench.submit(call(f.give, number)) for number in range(200)]
    bench.until(lambda: all(file.exists() for file in files), "the stages did not begin")

    bench.close()

    failures = [bench.outcome(handle).failure for handle in running + waiting]
    assert {failure.error for failure in failures} == {"asyncio.CancelledError"}
    assert "closed" in failures[0].message


def test_an_executor_can_start_again(fresh):
    """Closed, started, it serves."""
    bench = fresh()
    bench.close()
    bench.start()

    assert bench.value(call(f.give, 1)) == 1


def test_the_constructor_touches_nothing(backend, tmp_path, monkeypatch):
    """Making an executor starts and writes nothing."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = threading.enumerate()
    backend.make()

    assert threading.enumerate() == before
    assert list(tmp_path.iterdir()) == []


# Stages with processes of their own


@pytest.mark.parametrize(
    ("function", "args", "how"),
    [(f.exit_with, [3], "exit code 3"), (f.exit_with, [0], "exit code 0"), (f.kill_itself, [], "SIGKILL")],
)
def test_a_lost_process_is_told(isolated, backend, function, args, how):
    """The call is lost, with its stage and how its process ended; the executor goes on."""
    failure = isolated.result(call(function, *args, context=context("doomed"))).failure

    assert failure.lost
    assert failure.error == "flowtilla.errors.StageLost"
    assert "'doomed'" in failure.message
    assert how in failure.message or not backend.autopsies
    assert isolated.value(call(f.give, 1)) == 1


def test_a_call_whose_process_dies_is_run_again(isolated, tmp_path):
    """Twice; the third death is its end."""
    again, too_often = tmp_path / "again", tmp_path / "too-often"

    assert isolated.value(call(f.kill_itself_until, str(again), 2)) == "survived"
    # Before the next one kills the process that holds the value, which the cluster may make again.
    assert again.read_text() == "here\n" * 3
    assert isolated.result(call(f.kill_itself_until, str(too_often), 3)).failure.lost
    assert too_often.read_text() == "here\n" * 3


def test_a_lost_process_takes_no_other_call_along(isolated, tmp_path):
    """What runs beside it finishes, and what waits runs."""
    beside = isolated.submit(call(f.wait_for, str(tmp_path / "go")))
    doomed = [isolated.submit(call(f.kill_itself)) for _ in range(3)]
    waiting = isolated.submit(call(f.give, 5))

    assert all(isolated.outcome(handle).failure.lost for handle in doomed)
    assert isolated.outcome(waiting).value == 5
    (tmp_path / "go").touch()

    assert isolated.outcome(beside).failure is None


def test_lines_survive_a_lost_process(isolated, tmp_path):
    """What was sent while it ran is there."""
    handle = isolated.submit(call(f.talk_then_die, str(tmp_path / "go")))
    isolated.until(lambda: isolated.lines, "no line came")
    (tmp_path / "go").touch()

    assert isolated.outcome(handle).failure.lost
    assert [line.message for line in isolated.lines] == ["last words"]


def test_a_timeout_really_stops_a_stage(isolated, tmp_path):
    """Code that never looks up is killed."""
    handle = isolated.submit(call(f.wait_for, str(tmp_path / "never"), timeout=0.2))
    process = isolated.submit(call(f.pid))

    assert isolated.outcome(handle).failure.error == "flowtilla.errors.StageTimeout"
    assert isolated.outcome(process).failure is None

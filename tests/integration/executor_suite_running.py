"""What every executor must do while calls run: logs, room, memory, and its own life."""

import asyncio
import threading
import time

import pytest

import executor_functions as f
from executor_bench import PATIENCE, call, context, over
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


@pytest.mark.parametrize("mapped", [False, True], ids=["simple", "mapped"])
def test_logical_resources_are_counted(executor, tmp_path, mapped):
    """Of two calls that need the only wheel, the second waits; one that needs none passes."""
    go, file = tmp_path / "go", tmp_path / "order"

    def submit(function, *args, **resources):
        *shared, last = map(str, args)
        given = [*shared] if mapped else [*shared, last]
        items = over([last], place=len(shared)) if mapped else None
        return executor.submit(call(function, *given, items=items, resources=resources, cpus=0.5))

    first = submit(f.wait_for, go, wheels=1)
    second = submit(f.note, file, "second", wheels=1)
    passing = submit(f.note, file, "passing", doors=1)

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
    outcome = isolated.outcome(waiting)
    assert outcome.value == 5, outcome
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

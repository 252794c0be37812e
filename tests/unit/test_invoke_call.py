"""One call in the process that runs a stage, whatever the executor; and what it writes."""

import asyncio
import contextlib
import io
import logging
import sys
import threading

import cloudpickle
import pytest

import flowtilla
from flowtilla.cancellation import Cancellation
from flowtilla.context import Context
from flowtilla.errors import NotInStage
from flowtilla_executors import Call, Failure, Items, Literal, Parent, capture
from flowtilla_executors.invoke import invoke
from flowtilla_executors.outcome import LONGEST
from flowtilla_executors.values import Copied, snapshot

HERE = Context(run_id="run1", namespace="space", workflow="flow", stage="stage", attempt=2, executor="local")


@pytest.fixture
def captured():
    capture.install()
    yield
    capture.uninstall()


def ran(function, *args, parents=(), keep=snapshot, emit=None, **options):
    """Invokes a function of this module, which no import would find."""
    target = function if isinstance(function, str) else cloudpickle.dumps(function)
    call = Call(target, HERE, tuple(args), **options)
    return invoke(call, [snapshot(parent) for parent in parents], keep, emit)


def messages(outcome):
    return [(line.source, line.message) for line in outcome.logs]


def test_a_call_returns_what_keep_makes_of_its_value():
    """The value is the executor's to keep; the outcome describes it."""
    kept, outcome = ran("operator.add", Literal(1), Parent(0), parents=[2], keep=lambda value: ["kept", value])

    assert kept == ["kept", 3]
    assert (outcome.value, outcome.kind, outcome.failure) == (3, "int", None)


def test_a_refusal_to_keep_fails_the_call():
    """Nothing is kept, and the sentence says what to do."""

    def refuse(value):
        raise OSError("no room")

    kept, outcome = ran("operator.add", Literal(1), Literal(2), keep=refuse)

    assert kept is None
    assert outcome.failure.error == "flowtilla.errors.ValueNotStorable"
    assert "no room" in outcome.failure.message


def test_a_parent_that_cannot_be_read_fails_the_call():
    """As an error of the stage that reads it."""

    _, outcome = invoke(Call("operator.neg", HERE, (Parent(0),)), [Copied(b"")], snapshot)

    assert (outcome.failure.error, outcome.failure.message) == ("EOFError", "Ran out of input")


def test_staged_artifacts_come_with_the_outcome():
    """Of a failed call too, to be discarded; of a map, those of the items that succeeded."""

    def stage(x):
        flowtilla.context()._staged.append({"name": f"artifact{x}"})
        return 1 / x

    assert ran(stage, Literal(1))[1].artifacts == ({"name": "artifact1"},)
    assert ran(stage, Literal(0))[1].artifacts == ({"name": "artifact0"},)
    assert ran(stage, items=Items(Literal([1, 0, 2])))[1].artifacts == ({"name": "artifact1"}, {"name": "artifact2"})
    assert HERE._staged == []


def test_cancellation_is_seen_inside():
    """`context().cancelled` says whether somebody asked the call to stop."""

    def look():
        return flowtilla.context().cancelled

    cancellation = Cancellation()
    call = Call(cloudpickle.dumps(look), HERE)

    assert invoke(call, [], snapshot, cancellation=cancellation)[1].value is False
    cancellation.request()
    assert invoke(call, [], snapshot, cancellation=cancellation)[1].value is True
    assert ran(look)[1].value is False


def test_the_context_ends_with_the_call():
    """Nothing of a stage is left in the thread."""
    ran("operator.neg", Literal(1))

    with pytest.raises(NotInStage):
        flowtilla.context()


def test_an_async_stage_has_its_context_in_its_tasks():
    """Also below `gather`."""

    async def stage():
        async def item():
            await asyncio.sleep(0)
            return flowtilla.context().stage

        return await asyncio.gather(item(), item())

    assert ran(stage)[1].value == ["stage", "stage"]


def test_a_long_error_is_shortened():
    """Its beginning and end stay; it can be written as UTF-8."""

    def stage():
        raise ValueError("<" + "\ud800" * 10_000_000 + ">")

    failure = ran(stage)[1].failure

    assert failure.message.startswith("<")
    assert failure.message.endswith(">")
    assert "characters left out" in failure.message
    assert len(failure.message.encode()) < 10 * LONGEST
    assert len(failure.traceback.encode()) < 10 * LONGEST


def test_an_error_that_cannot_speak_is_still_told():
    """Its class is there."""

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    failure = Failure.of(Mute())

    assert failure.error.endswith("Mute")
    assert "RuntimeError" in failure.message


def test_a_group_of_errors_is_told_whole():
    """With each one's message."""

    def stage():
        raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])

    failure = ran(stage)[1].failure

    assert failure.error == "ExceptionGroup"
    assert "ValueError: one" in failure.traceback
    assert "KeyError: 'two'" in failure.traceback


def test_output_is_recorded_only_inside(captured, capsys):
    """Around a stage, output goes where it goes."""
    print("before")
    _, outcome = ran(lambda: print("inside"))
    print("after")

    assert messages(outcome) == [("stdout", "inside")]
    assert capsys.readouterr().out == "before\nafter\n"


def test_streams_put_in_place_later_are_respected(captured):
    """Somebody replaces sys.stdout while we watch, as test runners do: the next call is recorded all the same."""
    with contextlib.redirect_stdout(io.StringIO()) as other:
        print("theirs")
        _, outcome = ran(lambda: print("inside"))

    assert messages(outcome) == [("stdout", "inside")]
    assert other.getvalue() == "theirs\n"


def test_a_stage_may_redirect_its_own_output(captured):
    """What it takes is its own."""

    def stage():
        with contextlib.redirect_stdout(io.StringIO()) as mine:
            print("mine")
        return mine.getvalue()

    _, outcome = ran(stage)

    assert outcome.value == "mine\n"
    assert outcome.logs == ()


def test_streams_look_like_streams(captured):
    """Libraries ask them things."""

    def stage():
        sys.stdout.writelines(["a\n", "b\n"])
        sys.stdout.flush()
        with contextlib.suppress(TypeError):
            sys.stdout.write(b"bytes")
        return [sys.stdout.isatty(), sys.stdout.encoding.lower(), sys.stdout.write("four")]

    _, outcome = ran(stage)

    assert outcome.value == [False, "utf-8", 4]
    assert messages(outcome) == [("stdout", "a"), ("stdout", "b"), ("stdout", "four")]


def test_writers_in_threads_do_not_mix_their_lines(captured):
    """Each thread finishes its own."""

    def stage():
        turn = threading.Barrier(2)

        def write(word):
            for part in word:
                turn.wait()
                sys.stdout.write(part)
            print()

        threads = [threading.Thread(target=write, args=(word,)) for word in ("aaa", "bbb")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    _, outcome = ran(stage)

    assert sorted(messages(outcome)) == [("stdout", "aaa"), ("stdout", "bbb")]


def test_a_thread_that_outlives_its_stage_prints_for_itself(captured, capsys):
    """It does not write into the next stage."""
    go = threading.Event()

    def late():
        go.wait(10)
        print("late")

    with capture.recording(HERE, None) as recorder:
        thread = threading.Thread(target=late)
        thread.start()
    go.set()
    thread.join()

    assert recorder.take() == ()
    assert capsys.readouterr().out == "late\n"


def test_a_broken_log_call_is_told(captured):
    """As logging does, on stderr, which is the stage's."""
    _, outcome = ran(lambda: logging.getLogger("x").warning("%d", "seven"))

    text = "\n".join(message for _, message in messages(outcome))
    assert "Logging error" in text


def test_lines_refused_while_running_come_at_the_end(captured):
    """Nothing is lost when they cannot be sent."""
    refused = threading.Event()

    def refuse(lines):
        refused.set()
        raise OSError("nobody listens")

    with capture.recording(HERE, refuse) as recorder:
        print("hello")
        assert refused.wait(10)

    assert [line.message for line in recorder.take()] == ["hello"]


def test_lines_sent_while_running_do_not_come_again(captured):
    """Each line is handed on once."""
    sent = []
    arrived = threading.Event()

    def take(lines):
        sent.extend(line.message for line in lines)
        arrived.set()

    with capture.recording(HERE, take) as recorder:
        print("hello")
        assert arrived.wait(10)
        print("end", end="")

    assert sent == ["hello"]
    assert [line.message for line in recorder.take()] == ["end"]


def test_watching_twice_is_put_back_once():
    """Two executors in one process share the proxies."""
    before = sys.stdout
    capture.install()
    proxy = sys.stdout
    capture.install()

    assert sys.stdout is proxy is not before
    capture.uninstall()
    assert sys.stdout is proxy
    capture.uninstall()
    assert sys.stdout is before

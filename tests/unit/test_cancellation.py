"""How a stage is asked to stop, and the clean-up that it registered; the same in every process that runs stages."""

import pickle
import threading
from collections.abc import Callable, Iterator

import cloudpickle
import pytest

import flowtilla
from flowtilla.cancellation import Cancellation
from flowtilla.context import Context, entered
from flowtilla_executors import Call, Items, Literal, Outcome, capture
from flowtilla_executors.invoke import invoke
from flowtilla_executors.values import snapshot

HERE = Context(run_id="run1", namespace="space", workflow="flow", stage="stage", attempt=2, executor="local")


@pytest.fixture(autouse=True)
def captured() -> Iterator[None]:
    """What stages write is recorded."""
    capture.install()
    yield
    capture.uninstall()


def ran(function: Callable[..., object], cancellation: Cancellation, **options: object) -> Outcome:
    """Runs a function as a stage that this asks to stop."""
    call = Call(cloudpickle.dumps(function), HERE, **options)  # type: ignore[arg-type]
    return invoke(call, [], snapshot, cancellation=cancellation)[1]


def test_who_looks_or_registers_heeds() -> None:
    """The executor is told once; a stage that does neither need not be waited for."""
    told: list[Cancellation] = []
    cancellation = Cancellation(told.append)

    def look() -> None:
        assert not flowtilla.context().cancelled
        assert not flowtilla.context().cancelled
        flowtilla.context().on_cancel(print)

    assert ran(lambda: None, cancellation).failure is None
    assert (told, cancellation.heeds) == ([], False)
    assert ran(look, cancellation).failure is None
    assert (told, cancellation.heeds) == ([cancellation], True)


def test_clean_up_runs_while_the_stage_does() -> None:
    """On a thread of its own, the last registered first, each once; what it prints is the stage's."""
    cancellation = Cancellation(lambda call: threading.Timer(0.1, call.request).start())

    def stage() -> list[bool]:
        go, threads = threading.Event(), []
        context = flowtilla.context()
        context.on_cancel(lambda: (print("first", flowtilla.context().stage), go.set()))
        context.on_cancel(lambda: (print("second"), threads.append(threading.get_ident())))
        go.wait(20)
        return [context.cancelled, threads[0] != threading.get_ident(), len(threads) == 1]

    outcome = ran(stage, cancellation)
    cancellation.request()

    assert outcome.value == [True, True, True]
    assert [(line.stage, line.message) for line in outcome.logs] == [("stage", "second"), ("stage", "first stage")]


def test_a_callback_that_fails_is_told_and_the_others_run() -> None:
    """With its traceback, in the stage's log; the stage itself goes on."""
    cancellation = Cancellation(lambda call: threading.Timer(0.1, call.request).start())

    def stage() -> str:
        go = threading.Event()
        flowtilla.context().on_cancel(go.set)
        flowtilla.context().on_cancel(lambda: 1 / 0)
        flowtilla.context().on_cancel(lambda: exit(3))
        return "set" if go.wait(20) else "not set"

    outcome = ran(stage, cancellation)

    assert outcome.value == "set"
    assert [line.level for line in outcome.logs] == ["ERROR", "ERROR"]
    assert "on_cancel callback failed" in outcome.logs[1].message
    assert "ZeroDivisionError" in outcome.logs[1].message


def test_the_call_ends_after_its_clean_up() -> None:
    """One that returns while a callback runs is over when that is."""
    cancellation = Cancellation(lambda call: threading.Timer(0.1, call.request).start())
    done: list[str] = []
    begun, ended = threading.Event(), threading.Event()

    def clean_up() -> None:
        begun.set()
        assert not ended.wait(0.2)
        done.append("cleaned")

    with entered(HERE, _cancellation=cancellation) as context:
        context.on_cancel(clean_up)
        assert begun.wait(20)
        cancellation.forget()
        ended.set()

    assert done == ["cleaned"]


def test_clean_up_is_forgotten_with_its_item() -> None:
    """Of a mapped stage only that of the item that runs is done; items behind it are not begun."""
    cancellation = Cancellation()

    def item(x: int) -> None:
        context = flowtilla.context()
        context.on_cancel(lambda: print("clean", context.item))
        if x == 2:
            go = threading.Event()
            context.on_cancel(go.set)
            print("waits")
            go.wait(20)

    def request() -> None:
        while not cancellation.heeds or len(cancellation._callbacks) < 2:
            threading.Event().wait(0.01)
        cancellation.request()

    threading.Thread(target=request).start()
    outcome = ran(item, cancellation, items=Items(Literal([0, 1, 2, 3])))

    assert outcome.failure is not None and outcome.failure.error == "asyncio.exceptions.CancelledError"
    assert [(line.item, line.message) for line in outcome.logs] == [(2, "waits"), (2, "clean 2")]


def test_clean_up_registered_too_late_runs_at_once() -> None:
    """Nothing that was opened after the word came stays open."""
    cancellation = Cancellation()
    cancellation.request()

    def stage() -> None:
        flowtilla.context().on_cancel(lambda: print("at once"))
        print("after")

    assert [line.message for line in ran(stage, cancellation).logs] == ["at once", "after"]


def test_nothing_is_done_after_the_stage() -> None:
    """A stage that has ended has nothing to clean up."""
    cancellation = Cancellation()
    outcome = ran(lambda: flowtilla.context().on_cancel(lambda: print("too late")), cancellation)
    cancellation.request()

    assert outcome.logs == ()


@pytest.mark.parametrize("wrong", [None, "text"])
def test_only_plain_functions_are_taken(wrong: object) -> None:
    """A coroutine would run on a loop that is not the stage's."""

    async def clean_up() -> None: ...

    for each in (wrong, clean_up):
        with pytest.raises(TypeError, match="on_cancel takes a plain function"), entered(HERE) as context:
            context.__dict__["_cancellation"] = Cancellation()
            context.on_cancel(each)  # type: ignore[arg-type]


def test_outside_a_worker_nobody_is_asked_to_stop() -> None:
    """A context that a test makes takes clean-up too, and never runs it; one that travels is asked by nobody."""
    HERE.on_cancel(print)
    assert not HERE.cancelled
    with entered(HERE, _cancellation=Cancellation()) as context:
        assert not pickle.loads(pickle.dumps(context)).cancelled

"""The Local executor in threads: what cannot be stopped, and what it puts back."""

import logging
import sys
import threading

import pytest

import executor_functions as f
from backends import Backend
from executor_bench import call, context, making


@pytest.fixture
def fresh():
    with making(Backend("local", {"mode": "threads", "cpus": 1}, isolates=False)) as make:
        yield make


@pytest.fixture
def bench(fresh):
    return fresh()


def test_a_stage_that_ignores_its_timeout_keeps_its_room(bench, tmp_path):
    """The outcome comes at the deadline; what waits runs when the thread is free."""
    stuck = bench.submit(call(f.wait_for, str(tmp_path / "go"), timeout=0.05))
    behind = bench.submit(call(f.give, 1))

    assert bench.outcome(stuck).failure.error == "flowtilla.errors.StageTimeout"
    assert not behind.settled
    (tmp_path / "go").touch()
    assert bench.outcome(behind).value == 1


def test_a_stage_hears_that_it_was_cancelled(bench, tmp_path):
    """`context().cancelled` turns true, and a loop that looks returns."""
    file = tmp_path / "started"
    handle = bench.submit(call(f.start_and_wait, str(file)))
    bench.until(file.exists, "the stage did not begin")
    bench.cancel(handle)

    assert bench.outcome(handle).failure.error == "asyncio.CancelledError"
    assert bench.value(call(f.give, 1)) == 1


def test_output_outside_stages_goes_where_it_went(bench, capsys):
    """The worker prints and logs as before, while stages run and after."""
    bench.finished(call(f.talk))
    print("the worker's own")

    assert capsys.readouterr().out == "the worker's own\n"


def test_closing_puts_everything_back(fresh):
    """Streams, root handlers, levels, thread starting, the environment."""

    def state():
        root = logging.getLogger()
        level = logging.getLogger("flowtilla.stage").level
        return sys.stdout, sys.stderr, list(root.handlers), root.level, level, threading.Thread.start

    before = state()
    bench = fresh(env_vars={"FLOWTILLA_TEST": "yes"})
    bench.finished(call(f.talk))
    assert state() != before

    bench.close()

    assert state() == before
    import os

    assert "FLOWTILLA_TEST" not in os.environ


def test_closing_frees_the_threads(fresh):
    """Idle threads end."""
    bench = fresh()
    bench.finished(call(f.give, 1))
    assert any(thread.name == "flowtilla-stage" for thread in threading.enumerate())
    bench.close()

    bench.until(
        lambda: not any(thread.name == "flowtilla-stage" for thread in threading.enumerate()), "a thread lives on"
    )


def test_what_nobody_counts_is_warned_of_once(bench, caplog):
    """gpus and memory, once for each stage."""
    for stage in ("one", "one", "two"):
        bench.finished(call(f.give, 1, context=context(stage), gpus=1, memory=10**12))

    warned = [record.getMessage() for record in caplog.records if "ignored" in record.getMessage()]
    assert len(warned) == 2
    assert "'one'" in warned[0]
    assert "'two'" in warned[1]


def test_values_go_with_their_handles(bench):
    """No idle thread holds the last one."""
    import gc
    import weakref

    handle = bench.finished(call(f.give, [1]))
    gone = weakref.ref(handle)
    del handle

    bench.until(lambda: gc.collect() >= 0 and gone() is None, "somebody holds the handle")

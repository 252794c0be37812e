"""Calls submitted ahead, where the back end orders them: after those they refer to, without anybody waiting between."""

import asyncio
import random
import time

import pytest

import executor_bench
import executor_functions as f
from backends import BACKENDS
from executor_bench import call
from flowtilla_executors import Parent

AHEAD = [name for name, backend in BACKENDS.items() if backend.kind in ("ray", "dask")]
pytestmark = pytest.mark.parametrize("backend", AHEAD, indirect=True, scope="session")

executor = executor_bench.executor


def ahead(function, *args, **options):
    return call(function, *args, ahead=True, **options)


def test_a_chain(executor):
    """Whether or not its calls come in one turn."""
    first = executor.submit(call(f.give, 1))
    second = executor.submit(ahead(f.add, Parent(0), Parent(0)), first)
    third = executor.submit(ahead(f.add, Parent(0), Parent(1)), first, second)
    together = executor.submit_all(
        (call(f.give, 1),),
        (ahead(f.add, Parent(0), Parent(0)), 0),
        (ahead(f.add, Parent(0), Parent(1)), 0, 1),
    )

    for handles in ([first, second, third], together):
        assert [executor.outcome(handle).value for handle in handles] == [1, 2, 3]


def test_several_ends(executor):
    """Calls that share what they wait for; each is told of, and once."""
    double = ahead(f.double, Parent(0))
    handles = executor.submit_all((call(f.give, 1),), *[(double, 0)] * 5, *[(double, number) for number in range(1, 6)])

    assert [executor.outcome(handle).value for handle in reversed(handles)] == [4] * 5 + [2] * 5 + [1]


def test_a_long_chain(executor):
    """Each of its calls is told of."""
    more = ahead(f.add, Parent(0), 1)
    handles = executor.submit_all((call(f.give, 0),), *[(more, number) for number in range(300)])

    assert executor.outcome(handles[-1]).value == 300
    assert [executor.outcome(handle).value for handle in handles] == list(range(301))


def test_what_has_ended_is_told_while_what_waited_for_it_runs(executor, tmp_path):
    """Soon, however long that takes."""
    go = tmp_path / "go"
    given, wait = executor.submit_all((call(f.give, str(go)),), (ahead(f.wait_for, Parent(0)), 0))

    assert executor.outcome(given).value == str(go)
    go.touch()
    assert executor.outcome(wait).failure is None


@pytest.mark.parametrize("seed", range(60))
def test_cancelling_at_any_moment(executor, tmp_path, seed):
    """Many times: at the wrong one Ray took the driver process down now and then, or forgot what it was told."""
    chance = random.Random(seed)
    go = tmp_path / "go"
    first = call(f.wait_for, str(go)) if seed % 2 else call(f.give, 1)
    again = ahead(f.give, Parent(0))
    handles = executor.submit_all((first,), (again, 0), (again, 1), (again, 1), (again, 2))
    unlucky = chance.choice([handles, handles[::-1], handles[:3]])

    async def cancel():
        await asyncio.sleep(chance.choice([0, 0, 0.001, 0.003, 0.006, 0.02]))
        await asyncio.gather(*[executor.executor.cancel(handle) for handle in unlucky])

    began = time.monotonic()
    executor.run(cancel())
    assert time.monotonic() - began < 10
    go.touch()
    for handle in handles:
        outcome = executor.outcome(handle)
        assert outcome.early or outcome.failure is None or outcome.failure.error == "asyncio.CancelledError"


def test_what_is_cancelled_leaves_what_it_waits_for(executor, tmp_path):
    """Nobody takes its value any more, but it goes on."""
    go = tmp_path / "go"
    wait, last = executor.submit_all((call(f.wait_for, str(go)),), (ahead(f.give, Parent(0)), 0))

    executor.cancel(last)
    go.touch()

    assert executor.outcome(last).failure.error == "asyncio.CancelledError"
    assert executor.outcome(wait).failure is None


def test_what_is_ahead_of_a_failure_is_early(executor):
    """Down the whole chain; it can be submitted again."""
    again = ahead(f.add, Parent(0), Parent(0))
    first, second, third = executor.submit_all((call(f.fail),), (again, 0), (again, 1))

    assert executor.outcome(first).failure.error == "executor_functions.Flaky"
    assert executor.outcome(second).early
    assert executor.outcome(third).early


@pytest.mark.parametrize("end", ["cancelled", "late", "dead"])
def test_what_is_ahead_of_a_stopped_call_is_early(executor, tmp_path, end):
    """Nobody waits for ever for a parent that will not come."""
    started = tmp_path / "started"
    parent = call(f.kill_itself) if end == "dead" else call(f.start_and_wait, str(started))
    parent = call(f.start_and_wait, str(started), timeout=0.3) if end == "late" else parent
    first, second = executor.submit_all((parent,), (ahead(f.give, Parent(0)), 0))
    if end == "cancelled":
        executor.until(started.exists, "the stage did not begin")
        executor.cancel(first)

    assert executor.outcome(first).failure is not None
    assert executor.outcome(second).early

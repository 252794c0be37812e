"""Calls on Dask: what is stopped and what is not, what is kept and what is forgotten."""

import os
import signal
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
from distributed import Client

import dask_stages as s
import executor_functions as f
from backends import Backend
from dask_cluster import start_scheduler, start_worker
from executor_bench import PATIENCE, call, context, making, over
from fleet import until
from flowtilla.errors import ResourcesUnavailable
from flowtilla_executors import Parent
from flowtilla_executors.dask import unwanted


@pytest.fixture
def benches():
    """Executors of a test's own, closed after it."""
    with making(Backend("dask")) as make:
        yield make


@pytest.fixture(scope="module")
def dask():
    with making(Backend("dask")) as make:
        yield make(cpus=2)


def on_scheduler(bench, look):
    return bench.executor.session._client.run_on_scheduler(look)


@contextmanager
def held(bench):
    """Holds up the event loop of the executor."""
    holds, release = threading.Event(), threading.Event()

    async def hold():
        holds.set()
        release.wait(PATIENCE)

    holding = threading.Thread(target=bench.run, args=(hold(),))
    holding.start()
    assert holds.wait(PATIENCE)
    try:
        yield
    finally:
        release.set()
        holding.join()


# Stopping


def test_code_that_catches_exceptions_is_stopped(dask, tmp_path):
    """A cancelled stage is stopped by what `except Exception` lets through; its `finally` runs."""
    over = tmp_path / "over"
    handle = dask.submit(call(s.trap, str(over), timeout=0.3))

    assert dask.outcome(handle).failure.error == "flowtilla.errors.StageTimeout"

    until(over.exists)


@pytest.mark.parametrize("number", range(5))
def test_a_stage_that_tidies_up_is_not_stopped_twice_at_once(dask, tmp_path, number):
    """Several are who ask it to stop, and its `finally` is to run."""
    file = tmp_path / "stage"
    handle = dask.submit(call(s.tidies_in_finally, str(file)))
    dask.until(file.exists, "the stage did not begin")

    dask.cancel(handle)

    assert (tmp_path / "stage-tidied").exists()


def test_a_worker_that_does_not_answer_is_asked_again(benches, tmp_path, monkeypatch):
    """Whether it runs the call that is to stop; cancelling ends when it says that it does not."""
    monkeypatch.setattr(unwanted, "_ANSWER", 0.3)
    ask, asked = unwanted.Unwanted._ask, []
    monkeypatch.setattr(unwanted.Unwanted, "_ask", lambda self, keys: asked.append(keys) or ask(self, keys))
    bench = benches(cpus=1)
    process = bench.value(call(f.pid))
    begun = tmp_path / "begun"
    busy = bench.submit(call(f.wait_for, str(tmp_path / "go"), str(begun)))
    bench.until(begun.exists, "the stage did not begin")
    waiting = bench.submit(call(f.give, 1))
    cancelling = threading.Thread(target=bench.cancel, args=(waiting,))

    os.kill(process, signal.SIGSTOP)
    cancelling.start()
    until(lambda: len(asked) > 2)
    os.kill(process, signal.SIGCONT)

    cancelling.join(PATIENCE)
    assert not cancelling.is_alive()
    (tmp_path / "go").touch()
    assert bench.outcome(busy).failure is None


def test_a_map_is_stopped_between_items(dask, tmp_path):
    """Not only the item that runs."""
    handle = dask.submit(call(s.items_that_wait, str(tmp_path), items=over(list(range(1000)))))
    dask.until(lambda: (tmp_path / "3").exists(), "the items do not run")

    dask.cancel(handle)

    assert dask.value(call(f.give, 1)) == 1
    seen = []
    until(lambda: seen.append(len(list(tmp_path.iterdir()))) or (len(seen) > 30 and seen[-1] == seen[-30]))
    assert seen[-1] < 100


def test_the_next_call_of_a_thread_is_not_hit(dask, tmp_path):
    """However the end of a call and its cancellation fall together."""
    for number in range(40):
        handle = dask.submit(call(f.note, str(tmp_path / "notes"), str(number)))
        time.sleep(number % 8 / 1000)
        dask.cancel(handle)

    assert [dask.result(call(f.give, number)).value for number in range(20)] == list(range(20))


# Deaths


def test_a_death_is_blamed_on_who_ran(benches, tmp_path):
    """Of the calls that a worker held, the one that killed it is lost and the others go on."""
    bench = benches(cpus=1)
    doomed = bench.submit(call(f.kill_itself))
    others = [bench.submit(call(f.give, number)) for number in range(20)]

    assert bench.outcome(doomed).failure.lost
    outcomes = [bench.outcome(handle) for handle in others]
    assert [outcome.failure for outcome in outcomes] == [None] * 20
    assert [outcome.value for outcome in outcomes] == list(range(20))


def test_a_lost_value_is_made_again(benches, tmp_path):
    """When the only worker that had it is gone; its lines and outcome come once."""
    bench = benches(cpus=1)
    made = bench.finished(call(f.talk_of, "a"))
    process = bench.value(call(f.pid))
    bench.result(call(f.kill_itself))

    assert bench.value(call(f.pid)) != process
    assert bench.fetch(made) is None
    assert bench.value(call(s.kind, Parent(0)), made) == "NoneType"
    assert bench.lines == []


def test_a_value_that_is_lost_unseen_is_made_again(benches, tmp_path):
    """It went with its worker after the call had ended, and before this process heard of that."""
    file, begun = tmp_path / "file", tmp_path / "begun"
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        start_worker(tmp_path, stack, address, "one")
        bench = benches(cluster_address=address)
        process = bench.value(call(f.pid))
        handle = bench.submit(call(f.wait_for, str(file), str(begun)))
        bench.until(begun.exists, "the stage did not begin")
        client = stack.enter_context(Client(address, set_as_default=False))

        def in_memory(key=handle.key):
            return client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.tasks[key].state == "memory")

        with held(bench):
            file.touch()
            until(in_memory)
            os.kill(process, signal.SIGKILL)
            until(lambda: not in_memory())

        assert bench.outcome(handle).failure is None
        assert bench.fetch(handle) != process
        bench.close()


def test_a_worker_without_nanny_serves(benches, tmp_path):
    """What it dies of is told as well as it can be."""
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        for number in range(3):
            start_worker(tmp_path, stack, address, f"bare-{number}", None, "--no-nanny")
        until(lambda: (tmp_path / "worker.log").read_text().count("Registered to") == 3)
        bench = benches(cluster_address=address, autoscales=True)

        assert bench.value(call(f.give, 1)) == 1
        doomed = bench.submit(call(f.kill_itself))

        assert bench.outcome(doomed).failure.lost
        bench.close()


# Room


def test_more_cpus_than_a_worker_has_are_refused(dask):
    """With what to set."""
    with pytest.raises(ResourcesUnavailable, match=r"asks for cpus=2.*set `threads`"):
        dask.submit(call(f.give, cpus=2))


def test_several_cpus_are_counted_where_a_worker_has_threads(benches, tmp_path):
    """A call of two leaves no room for one of one."""
    bench = benches(cpus=1, threads=2)
    wide = bench.submit(call(f.wait_for, str(tmp_path / "go"), cpus=2))
    narrow = bench.submit(call(f.note, str(tmp_path / "order"), "narrow"))
    end = time.monotonic() + 0.5
    bench.until(lambda: time.monotonic() > end, "time stands still")
    assert not (tmp_path / "order").exists()

    (tmp_path / "go").touch()

    assert bench.outcome(wide).failure is None
    assert bench.outcome(narrow).failure is None


def test_memory_is_a_need(benches):
    """A worker's limit is what it has."""
    bench = benches(cpus=1, memory=1_000_000_000)

    assert bench.result(call(f.give, 1, memory=500_000_000)).value == 1
    with pytest.raises(ResourcesUnavailable, match=r"memory=1\.86GiB.*memory=0\.931GiB"):
        bench.submit(call(f.give, memory=2_000_000_000))


def test_an_autoscaling_cluster_is_waited_for(benches, tmp_path):
    """What no worker can run now waits for one that can."""
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        bench = benches(cluster_address=address, autoscales=True)
        handle = bench.submit(call(f.give, 7, resources={"wheels": 1}))

        start_worker(tmp_path, stack, address, "late", {"wheels": 1})

        assert bench.outcome(handle).value == 7
        bench.close()


def test_a_cluster_adapts(benches):
    """It begins with one process; from none it comes to some, and is not lost meanwhile."""
    bench = benches(adaptive={"min": 0, "max": 2})
    assert bench.executor.info().cpus == 1
    bench.until(lambda: bench.executor.info().cpus == 0, "the process stays, with nothing to do")

    assert bench.value(call(f.give, 1)) == 1
    bench.until(lambda: bench.executor.info().cpus, "no worker is seen")


def test_an_adapting_cluster_brings_what_a_stage_needs(benches):
    """The process that has it, and not one more than there may be; what none could have is refused before any is up."""
    bench = benches(adaptive={"min": 0, "max": 2}, resources={"wheels": 1, "doors": 1})
    seen = []

    def workers():
        seen.append(on_scheduler(bench, lambda dask_scheduler: len(dask_scheduler.workers)))
        return seen[-1]

    with pytest.raises(ResourcesUnavailable, match=r"wheels=2.*wheels=1"):
        bench.submit(call(f.give, 1, resources={"wheels": 2}))
    with pytest.raises(ResourcesUnavailable):
        bench.submit(call(f.give, 1, cpus=2))
    for need in ("doors", "wheels", "doors"):
        handle = bench.submit(call(f.give, need, resources={need: 1}))
        until(lambda handle=handle: workers() is not None and handle.settled)
        assert bench.fetch(handle) == need
        del handle
        until(lambda: workers() == 0)

    assert max(seen) == 2
    assert bench.lines == []


def test_an_adapting_cluster_counts_before_it_has_a_process(benches, tmp_path):
    """What stages ask of cpus counts for those too that came first."""
    bench = benches(adaptive={"min": 0, "max": 2}, threads=2)
    files = [tmp_path / "a", tmp_path / "b"]
    handles = [bench.submit(call(f.wait_for, str(tmp_path / "go"), str(file), cpus=2)) for file in files]
    bench.until(lambda: any(file.exists() for file in files), "none began")
    (tmp_path / "go").touch()

    assert (
        on_scheduler(
            bench, lambda dask_scheduler: [dict(task.resource_restrictions) for task in dask_scheduler.tasks.values()]
        )
        == [{"CPU": 2.0}] * 2
    )
    assert [bench.outcome(handle).failure for handle in handles] == [None, None]


# What stays


@pytest.mark.alarm(300)
def test_ten_thousand_calls_leave_the_scheduler_as_it_was(benches):
    """No task, no group, no event of ours, however many there were."""
    bench = benches(cpus=2)

    def state():
        return on_scheduler(
            bench,
            lambda dask_scheduler: {
                "tasks": len(dask_scheduler.tasks),
                "groups": len(dask_scheduler.task_groups),
                "prefixes": len(dask_scheduler.task_prefixes),
                "events": sum(
                    len(events)
                    for topic, events in dask_scheduler.get_events().items()
                    if topic.startswith("flowtilla-")
                ),
            },
        )

    def calls(count):
        handles = [bench.submit(call(f.give, 1, context=context(f"stage{number}"))) for number in range(count)]
        assert all(bench.outcome(handle).value == 1 for handle in handles)

    calls(100)
    until(lambda: state()["tasks"] == 0)
    before = state()
    for _ in range(10):
        calls(1000)
    until(lambda: state()["tasks"] == 0)

    assert state() == before
    assert before["events"] == 0
    assert bench.executor.session._open == {}


def test_a_value_is_forgotten_with_its_handle(benches):
    """And not before."""
    bench = benches(cpus=1)
    handle = bench.finished(call(f.give, [1]))
    assert on_scheduler(bench, lambda dask_scheduler: len(dask_scheduler.tasks)) == 1
    assert bench.fetch(handle) == [1]

    del handle

    until(lambda: on_scheduler(bench, lambda dask_scheduler: len(dask_scheduler.tasks)) == 0)


def test_many_lines_come_once_and_in_order(dask):
    """Whether they come while the stage runs or with its end."""
    dask.lines.clear()
    outcome = dask.result(call(f.talk_much, 5000))

    messages = [line.message for line in [*dask.lines, *outcome.logs]]

    assert messages == [f"line {number}" for number in range(5000)]


def test_objects_outlive_who_put_them(benches, tmp_path):
    """They are the cluster's: another executor finds them, and a worker's death takes none along."""
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        start_worker(tmp_path, stack, address, "one")
        first = benches(cluster_address=address)
        first.finished(call(f.put_object, "shared", [1, 2]))
        first.result(call(f.kill_itself))
        first.close()

        second = benches(cluster_address=address)

        assert second.value(call(f.get_object, "shared")) == [1, 2]
        second.close()

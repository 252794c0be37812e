"""A Ray cluster of the executor's own: what it has, who can reach it, what its calls leave in it."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")

import ray_functions as r
from ray_processes import drivers, members

import executor_functions as f
from executor_bench import Bench, call
from fleet import until
from flowtilla.cancellation import GRACE
from flowtilla.errors import ConfigurationError, ExecutorClosed, ResourcesUnavailable
from flowtilla.settings import ExecutorSettings
from flowtilla_executors import Parent
from flowtilla_executors.gpus import devices
from flowtilla_executors.ray import link
from flowtilla_executors.registry import create
from flowtilla_worker.testing.loop import on_loop


def bench(**settings: Any) -> Bench:
    """Returns a Ray executor, not started."""
    return Bench(create(ExecutorSettings.model_validate({"target": "ray", "object_store_memory": "100MB", **settings})))


@pytest.fixture(scope="module")
def others() -> set[int]:
    """The driver processes of executors that other tests share."""
    return set(drivers())


@pytest.fixture(scope="module")
def local(others: set[int]) -> Iterator[Bench]:
    """An executor with a cluster of its own."""
    made = bench(cpus=2, memory="2GB", resources={"wheels": 3}, env_vars={"SIX": 6}, require_gpus=False)
    before = dict(os.environ), (Path.home() / ".ray" / "auth_token").exists()
    made.start()
    assert (dict(os.environ), (Path.home() / ".ray" / "auth_token").exists()) == before
    yield made
    made.close()


def test_what_ray_does_not_take_fails_alone(local: Bench) -> None:
    """Ray counts in parts of 1/10,000. Who asks for less fails, and what was to take the value does not begin."""
    less = call(f.give, 1, resources={"wheels": 0.000_01})
    refused, ahead, other = local.submit_all((less,), (call(f.give, Parent(0), ahead=True), 0), (call(f.give, 2),))

    failure = local.outcome(refused).failure
    assert failure.error == "flowtilla.errors.ResourcesUnavailable"
    assert "stage 'stage' of run run1: Ray cannot give what it asks for: " in failure.message
    assert local.outcome(ahead).early
    assert local.outcome(other).value == 2


def test_who_waits_for_a_value_when_the_executor_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the driver process, which does not answer any more, never says a word."""
    monkeypatch.setattr(link, "_LEAVING", 1.0)
    before = set(drivers())
    closing = bench(cpus=1)
    closing.start()
    kept = closing.finished(call(f.give, 1))
    [driver] = set(drivers()) - before
    os.kill(driver, signal.SIGSTOP)

    async def fetch_while_closing() -> None:
        fetching = asyncio.ensure_future(closing.executor.fetch(kept))
        await asyncio.sleep(0)
        await closing.executor.close()
        await fetching

    with pytest.raises(ExecutorClosed, match="was closed before the value was there"):
        closing.run(fetch_while_closing())


def test_it_has_what_it_was_given(local: Bench) -> None:
    """Cpus, memory, logical resources and environment variables, numbers too."""
    info = local.executor.info()

    assert (info.kind, info.address, info.cpus, info.resources["wheels"]) == ("ray", None, 2.0, 3.0)
    assert local.value(call(f.environment, "SIX")) == "6"
    assert local.value(call(r.store)) == 100_000_000
    assert local.value(call(f.give, 1, memory=10**9)) == 1
    with pytest.raises(
        ResourcesUnavailable, match=r"asks for cpus=1, memory=3.*GiB, and the ray executor has .*1.86GiB"
    ):
        local.submit(call(f.give, memory=4 * 10**9))


def test_only_this_machine_can_reach_it(local: Bench, others: set[int]) -> None:
    """All that listens does so on loopback."""
    [session] = set(drivers()) - others
    listening = {
        connection.laddr.ip
        for pid in members(session)
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }

    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_only_its_worker_can_use_it(local: Bench, others: set[int]) -> None:
    """It asks for a token of its own."""
    grpc = pytest.importorskip("grpc")
    [session] = set(drivers()) - others
    [store] = [psutil.Process(pid) for pid in members(session, "gcs/gcs_server")]
    [port] = [each.laddr.port for each in store.net_connections("inet") if each.status == psutil.CONN_LISTEN]

    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        with pytest.raises(grpc.RpcError) as refused:
            ask(b"", timeout=10)

    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.alarm(300)
def test_calls_leave_nothing_in_the_control_store(local: Bench) -> None:
    """Ten thousand calls, and its tables of functions, actors and events are as they were."""
    before = local.value(call(r.tables))

    async def run_all() -> None:
        for start in range(0, 10_000, 1000):
            calls = [call(f.give, number, cpus=1 + number % 2) for number in range(start, start + 1000)]
            handles = [local.executor.submit(each) for each in calls]
            for handle in handles:
                assert (await local.executor.outcome(handle)).failure is None

    on_loop(run_all())

    assert local.value(call(r.tables)) == before


def test_a_cancelled_call_takes_its_subprocesses_along(local: Bench, tmp_path: Path) -> None:
    """Nothing of it runs on."""
    file = tmp_path / "pid"
    handle = local.submit(call(f.start_subprocess, str(file)))
    local.until(lambda: file.exists() and file.read_text(), "the call did not begin")
    child = psutil.Process(int(file.read_text()))

    local.cancel(handle)

    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_the_time_that_the_word_takes_is_not_that_of_a_call_to_tidy_up(
    local: Bench, others: set[int], tmp_path: Path
) -> None:
    """The mailbox, on its way, is slow to answer when the call is to stop; both need longer than the grace."""
    driver = next(iter(set(drivers()) - others))
    handle = local.submit(call(r.tidy_up, str(tmp_path / "tidy"), 0.6 * GRACE))
    local.until(lambda: "waits" in [line.message for line in local.lines], "the call did not begin")
    [mailbox] = members(driver, "ray::Mailbox")

    os.kill(mailbox, signal.SIGSTOP)
    Timer(0.6 * GRACE, os.kill, [mailbox, signal.SIGCONT]).start()
    local.cancel(handle)

    assert (tmp_path / "tidy").exists()


def test_a_call_whose_lines_overtake_the_word_that_it_hears_is_told(local: Bench, tmp_path: Path) -> None:
    """Who has read them may take it that it hears: it is told, and not killed at once."""
    handle = local.submit(call(r.clean_up_heard_of_late, str(tmp_path / "told")))
    local.until(lambda: any(line.message == "overtakes" for line in local.lines), "it did not begin")

    local.cancel(handle)

    assert (tmp_path / "told").exists()


def test_calls_that_can_be_told_to_stop_leave_nothing(local: Bench) -> None:
    """What waits for the word, in the call's process and in the mailbox, ends with the call."""
    handles = [local.submit(call(f.look_and_count_threads)) for _ in range(300)]
    assert all(local.outcome(handle).failure is None for handle in handles)

    until(lambda: local.value(call(f.look_and_count_threads)) < 50)


def test_objects_in_memory_outlive_the_process_that_put_them(local: Bench) -> None:
    """They belong to the cluster, and each reader has a copy."""
    local.finished(call(f.put_object, "key", [1, 2]))
    with pytest.raises(AssertionError, match="StageLost"):
        local.finished(call(f.kill_itself))

    local.finished(call(f.change_object, "key"))
    assert local.value(call(f.get_object, "key")) == [1, 2]
    assert local.value(call(f.drop_object, "key"))


def test_a_call_that_no_node_could_meet_waits_where_the_cluster_grows() -> None:
    """It is taken, and can be cancelled."""
    growing = bench(cpus=1, autoscales=True)
    growing.start()
    handle = growing.submit(call(f.give, 1, cpus=64))

    growing.cancel(handle)

    assert growing.outcome(handle).failure.error == "asyncio.CancelledError"
    growing.close()
    with pytest.raises(TimeoutError):  # closing it is not losing it
        growing.run(asyncio.wait_for(growing.executor.lost(), 0.2))


@pytest.mark.parametrize("seconds", [0.0, 0.05, 1.5])
def test_a_start_that_is_given_up_leaves_nothing(seconds: float) -> None:
    """Whenever that is: no driver process, and nothing of its cluster."""
    before = set(drivers())
    hasty = bench(cpus=1)

    async def start() -> None:
        async with asyncio.timeout(seconds):
            await hasty.executor.start(hasty.lines.extend)

    with pytest.raises(TimeoutError):
        on_loop(start())

    assert set(drivers()) == before


def test_parts_of_several_gpus_are_refused(local: Bench) -> None:
    """Ray cannot give them, and we say so."""
    with pytest.raises(ResourcesUnavailable, match=r"gpus=1.5, and Ray gives parts only of one"):
        local.submit(call(f.give, gpus=1.5))


def test_processes_are_replaced_after_as_many_calls(tmp_path: Path) -> None:
    """And two executors live in one process, each with its own cluster."""
    frugal = bench(cpus=1, tasks_per_worker=1)
    frugal.start()

    assert len({frugal.value(call(f.pid)) for _ in range(3)}) == 3
    frugal.close()


def test_a_machine_without_the_gpus_says_so() -> None:
    """One sentence, with the setting that relaxes it."""
    greedy = bench(cpus=1, gpus=len(devices()) + 1)

    with pytest.raises(ConfigurationError, match=r"`gpus: \d+`, and this machine has .*require_gpus: false"):
        greedy.start()


@pytest.mark.skipif(not devices(), reason="this machine has no GPU")
def test_a_call_sees_the_gpus_that_it_asked_for() -> None:
    """Exactly one device."""
    with_gpus = bench(cpus=2, gpus=len(devices()))
    with_gpus.start()

    assert len(with_gpus.value(call(r.gpus, gpus=1))) == 1
    with_gpus.close()


def test_big_values_go_from_call_to_call(local: Bench) -> None:
    """Through the store of objects, each call with a copy that it may change."""
    array = local.finished(call(f.random_array, 2_000_000))
    changed = local.submit(call(f.increment, Parent(0), ahead=True), array)
    sums = [local.submit(call(f.checksum, Parent(0), ahead=True), each) for each in (array, changed)]

    assert [local.outcome(each).failure for each in sums] == [None, None]
    assert local.fetch(sums[0]) != local.fetch(sums[1])


def test_values_that_no_longer_fit_are_still_there(local: Bench) -> None:
    """Ray puts older ones on the disk, and brings them back."""
    first = local.finished(call(r.evict, 2_000_000, 1))
    others = [local.finished(call(r.evict, 2_000_000, 1)) for _ in range(12)]

    assert local.value(call(len, Parent(0)), first) == 1
    assert len(others) == 12

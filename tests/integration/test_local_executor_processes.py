"""The Local executor in processes: what it leaves behind, which is nothing, and what it withstands."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import executor_functions as f
from backends import Backend
from executor_bench import Bench, call, making
from flowtilla.cancellation import GRACE
from flowtilla_executors import Parent
from flowtilla_executors.local.directory import PrivateDirectory, bases

BIG = 1024 * 1024

WORKER = """
import asyncio, sys
sys.path[:0] = sys.argv[1].split(":")
import executor_functions as f
from executor_bench import call
from flowtilla_executors.local import LocalExecutor

async def main():
    async with LocalExecutor(cpus=2) as executor:
        big = executor.submit(call(f.give, b"x" * 1_000_000))
        await executor.outcome(big)
        pid = (await executor.outcome(executor.submit(call(f.pid)))).value
        print(pid, *executor._crew._directories, flush=True)
        await executor.outcome(executor.submit(call(f.start_subprocess, sys.argv[2])))

print("imported", flush=True)
asyncio.run(main())
"""


@pytest.fixture
def fresh():
    with making(Backend("local", {"cpus": 2})) as make:
        yield make


@pytest.fixture
def bench(fresh):
    return fresh()


@pytest.fixture
def worker(tmp_path):
    """A process with an executor in it that runs a stage, which runs a process: yields it, its pids and folders."""
    script, file = tmp_path / "script.py", tmp_path / "pid"
    script.write_text(WORKER)
    here = Path(__file__).parent
    command = [sys.executable, str(script), f"{here}:{here.parent}", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout.readline() == "imported\n"
            pid, *folders = process.stdout.readline().split()
            until(lambda: file.exists() and file.read_text(), "the stage did not begin")
            yield process, [int(pid), int(file.read_text())], [Path(folder) for folder in folders]
        finally:
            process.kill()


def until(true, why, patience=20.0):
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, why
        time.sleep(0.01)


def alive(pid):
    """Returns whether a process runs; one that waits for its parent to notice its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def files(bench: Bench):
    return [path.name for folder in bench.executor._crew._directories for path in folder.glob("value-*")]


def test_a_killed_worker_leaves_nothing(worker):
    """Its children notice, and go, with their subprocesses and folders."""
    process, pids, folders = worker
    assert all(alive(pid) for pid in pids)
    assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in folders)

    process.kill()

    until(lambda: not any(map(alive, pids)), "a child lives on", patience=5.0)
    assert not any(folder.exists() for folder in folders)


def test_a_worker_that_is_told_to_end_leaves_nothing(worker):
    """An interrupt reaches the worker and not the stage; the worker cleans up."""
    process, pids, folders = worker
    process.send_signal(signal.SIGINT)
    process.wait(20)

    until(lambda: not any(map(alive, pids)), "a child lives on")
    assert not any(folder.exists() for folder in folders)


def test_signals_for_everybody_are_not_for_stages(bench, tmp_path):
    """SIGTERM and SIGINT, as a service manager or a terminal sends them, leave a stage running."""
    handle = bench.submit(call(f.wait_for, str(tmp_path / "go")))
    pid = bench.value(call(f.pid))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    assert os.getsid(pid) == pid
    (tmp_path / "go").touch()

    assert bench.outcome(handle).failure is None
    assert bench.value(call(f.give, 1)) == 1


def test_closing_leaves_nothing(bench):
    """No child, no folder."""
    bench.finished(call(f.give, b"x" * BIG))
    pid, folders = bench.value(call(f.pid)), bench.executor._crew._directories
    assert alive(pid)

    bench.close()

    assert not alive(pid)
    assert not any(folder.exists() for folder in folders)


def test_closing_waits_for_no_stage(fresh, tmp_path, caplog):
    """Not for one that has time to tidy up, and what was to end it then does nothing."""
    bench = fresh()
    handle = bench.submit(call(f.look_until_cancelled, str(tmp_path / "stage")))
    bench.until(lambda: "waits" in [line.message for line in bench.lines], "the stage did not begin")
    begun = time.monotonic()

    bench.close()

    assert time.monotonic() - begun < GRACE
    assert bench.outcome(handle).failure.error == "asyncio.CancelledError"
    bench.run(asyncio.sleep(GRACE + 0.2))
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_big_value_goes_with_its_last_reference(bench):
    """It is a file while a handle, or a call that takes it, lives."""
    first = bench.finished(call(f.give, b"x" * BIG))
    second = bench.finished(call(f.give, Parent(0)), first)
    assert len(files(bench)) == 2

    del first
    until(lambda: len(files(bench)) == 1, "the first file is still there")
    assert bench.fetch(second) == b"x" * BIG

    del second
    until(lambda: not files(bench), "a file is still there")


def test_a_small_value_is_no_file(bench):
    """It travels with the reply."""
    handle = bench.finished(call(f.give, b"x" * 1000))

    assert files(bench) == []
    assert bench.fetch(handle) == b"x" * 1000


def test_an_idle_child_that_dies_is_replaced(bench):
    """However often."""
    for _ in range(3):
        os.kill(bench.value(call(f.pid)), signal.SIGKILL)

        outcome = bench.result(call(f.give, 1))
        assert outcome.value == 1 or outcome.failure.lost
        until(lambda: bench.result(call(f.give, 2)).value == 2, "the executor does not recover")


def test_cancelling_ends_a_stages_own_processes(bench, tmp_path):
    """They are of the stage's process group."""
    file = tmp_path / "pid"
    handle = bench.submit(call(f.start_subprocess, str(file)))
    bench.until(lambda: file.exists() and file.read_text(), "the stage did not begin")
    assert alive(int(file.read_text()))

    bench.cancel(handle)

    until(lambda: not alive(int(file.read_text())), "the subprocess lives on")


@pytest.mark.parametrize("end", ["cancelled", "late"])
def test_a_process_that_a_stage_let_go_holds_nobody_up(fresh, tmp_path, end):
    """Though it has the child's end of the connection open."""
    bench, file = fresh(cpus=1), tmp_path / "pid"
    handle = bench.submit(call(f.fork_away, str(file), timeout=3 if end == "late" else None))
    bench.until(lambda: file.exists() and file.read_text(), "the stage did not begin")
    try:
        if end == "late":
            assert bench.outcome(handle).failure.error == "flowtilla.errors.StageTimeout"

        bench.cancel(handle)

        assert bench.value(call(f.give, 1)) == 1
    finally:
        os.kill(int(file.read_text()), signal.SIGKILL)


def test_a_stage_that_looks_costs_its_process_one_thread(fresh):
    """However many calls do: the thread waits for the word to any of them."""
    bench = fresh(cpus=1)
    counts = [bench.value(call(f.look_and_count_threads)) for _ in range(20)]

    assert len(set(counts)) == 1


def test_what_waits_for_the_pool_can_be_cancelled(fresh):
    """A call that was given room before the children are up."""
    bench = fresh()
    handle = bench.submit(call(f.give, 1))
    bench.cancel(handle)

    assert bench.outcome(handle).failure.error == "asyncio.CancelledError"
    assert bench.value(call(f.give, 2)) == 2


def test_a_call_that_cannot_travel_fails(bench):
    """As does each of many."""
    import threading

    handles = [bench.submit(call(f.give, threading.Lock())) for _ in range(50)]

    assert {bench.outcome(handle).failure.error for handle in handles} == {"TypeError"}
    assert bench.value(call(f.give, 1)) == 1


def test_many_lines_arrive_whole_and_in_order(bench):
    """Sent while the stage ran, or with its outcome."""
    outcome = bench.result(call(f.talk_much, 20_000))

    assert [line.message for line in [*bench.lines, *outcome.logs]] == [f"line {n}" for n in range(20_000)]
    assert bench.lines


def test_a_start_removes_what_a_kill_left(tmp_path):
    """A folder that nobody holds goes; one that somebody holds stays, and so does what is not ours."""
    held = PrivateDirectory(tmp_path)
    left = tmp_path / "flowtilla-0123456789abcdef"
    left.mkdir()
    (left / "lock").touch()
    (left / "value-1-").touch()
    half_removed = tmp_path / "flowtilla-00000000000000ff"
    (half_removed / "logs").mkdir(parents=True)
    unlocked = tmp_path / ".flowtilla-0123456789abcdef"
    unlocked.mkdir()
    os.utime(unlocked, (0, 0))
    in_the_making = tmp_path / ".flowtilla-fedcba9876543210"
    in_the_making.mkdir()
    for other in ("flowtilla-notes", ".flowtilla-notes"):
        (tmp_path / other).mkdir()
        os.utime(tmp_path / other, (0, 0))

    new = PrivateDirectory(tmp_path)

    assert not left.exists()
    assert not half_removed.exists()
    assert not unlocked.exists()
    assert held.path.exists()
    new.close()
    held.close()
    assert {path.name for path in tmp_path.iterdir()} == {"flowtilla-notes", ".flowtilla-notes", in_the_making.name}


def test_shared_memory_comes_first():
    """The disk is for when it is full."""
    assert bases()[0] == Path("/dev/shm")
    assert len(bases()) == 2

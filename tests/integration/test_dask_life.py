"""The Dask executor's cluster: how it dies, what it leaves behind, and who can reach it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

import executor_functions as f
from backends import Backend
from dask_cluster import dask_cluster, end, start_scheduler, start_worker
from executor_bench import call, making
from fleet import until
from flowtilla.errors import ClusterLost, ResourcesUnavailable
from flowtilla_executors.dask import DaskExecutor

#: Seconds within which a cluster's death must be known.
KNOWN = 10.0


@pytest.fixture
def benches():
    """Executors of a test's own, closed after it."""
    with making(Backend("dask")) as make:
        yield make


def scheduler_of(bench):
    return bench.executor.session._client.scheduler.address


def session_of(pid):
    """Returns the processes of the session that a process leads."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def newest_head():
    """Returns the process that leads the local cluster that was started last."""
    heads = [child for child in psutil.Process().children() if "dask.head" in " ".join(child.cmdline())]
    return heads[-1].pid


def lost(bench):
    """Waits for the word that the cluster is lost, and returns it with the seconds that took."""
    began = time.monotonic()
    error = bench.run(bench.executor.lost())
    return error, time.monotonic() - began


def test_a_dead_scheduler_is_told(benches, tmp_path):
    """Whoever waits for an outcome or a value learns within ten seconds that the cluster is gone, and how it went."""
    bench = benches(cpus=2)
    kept = bench.finished(call(f.give, [1]))
    running = bench.submit(call(f.start_and_wait, str(tmp_path / "started")))
    bench.until((tmp_path / "started").exists, "the stage did not begin")

    os.kill(newest_head(), signal.SIGKILL)
    error, seconds = lost(bench)

    assert isinstance(error, ClusterLost)
    assert "SIGKILL" in str(error)
    assert seconds < KNOWN
    with pytest.raises(ClusterLost, match="SIGKILL"):
        bench.outcome(running)
    with pytest.raises(ClusterLost):
        bench.fetch(kept)
    with pytest.raises(ClusterLost):
        bench.outcome(bench.submit(call(f.give, 1)))


def test_a_lost_cluster_is_closed_soon_and_started_again(benches):
    """In the same process."""
    bench = benches(cpus=1)
    os.kill(newest_head(), signal.SIGKILL)
    lost(bench)

    began = time.monotonic()
    bench.close()
    assert time.monotonic() - began < 5
    bench.start()

    assert bench.value(call(f.give, 1)) == 1


def test_a_hanging_scheduler_is_told(benches):
    """One that answers nothing is as good as dead."""
    bench = benches(cpus=1)
    os.kill(newest_head(), signal.SIGSTOP)

    error, seconds = lost(bench)

    assert "does not answer" in str(error)
    assert seconds < KNOWN


def test_a_cluster_without_workers_is_told(benches, tmp_path):
    """All worker processes and their nannies gone, for longer than they take to come back."""
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        worker = start_worker(tmp_path, stack, address, "only")
        bench = benches(cluster_address=address)
        waiting = bench.submit(call(f.wait_for_ever))

        os.killpg(worker.pid, signal.SIGKILL)
        error, seconds = lost(bench)

        assert "no worker" in str(error)
        assert address in str(error)
        assert seconds < KNOWN
        with pytest.raises(ClusterLost):
            bench.outcome(waiting)
        bench.close()


def test_one_dead_worker_is_no_lost_cluster(benches, tmp_path):
    """Its calls run on the others."""
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        workers = [start_worker(tmp_path, stack, address, f"worker-{number}") for number in range(2)]
        until(lambda: (tmp_path / "worker.log").read_text().count("Registered to") == 2)
        bench = benches(cluster_address=address)
        kept = [bench.finished(call(f.give, [number])) for number in range(6)]
        running = [bench.submit(call(f.wait_for, str(tmp_path / "go"))) for _ in range(2)]

        os.killpg(workers[0].pid, signal.SIGKILL)
        (tmp_path / "go").touch()

        assert [bench.outcome(handle).failure for handle in running] == [None, None]
        assert [bench.fetch(handle) for handle in kept] == [[number] for number in range(6)]
        bench.close()


def test_a_call_that_only_an_absent_worker_could_run_waits_for_it(benches, tmp_path):
    """It fails neither at once nor later, and the run's log says what it waits for."""
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        start_worker(tmp_path, stack, address, "plain")
        winged = start_worker(tmp_path, stack, address, "winged", {"wings": 1})
        until(lambda: (tmp_path / "worker.log").read_text().count("Registered to") == 2)
        bench = benches(cluster_address=address)
        os.killpg(winged.pid, signal.SIGKILL)
        bench.until(lambda: not bench.executor.info().resources, "the worker was not missed")

        waiting = bench.submit(call(f.give, 1, resources={"wings": 1}))
        bench.until(lambda: bench.lines, "the log says nothing")
        start_worker(tmp_path, stack, address, "winged again", {"wings": 1})

        assert bench.outcome(waiting).value == 1
        assert [line.message for line in bench.lines] == [
            "no node that is up could give cpus=1, wings=1: the stage waits until one that could is back"
        ]


def test_workers_may_cease_to_count(benches, tmp_path):
    """While some count cpus or memory, a call goes to those; when they have made way for others, it goes to these."""
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        counting = start_worker(tmp_path, stack, address, "counting", {"CPU": 2, "MEMORY": 1e9})
        bench = benches(cluster_address=address)
        assert bench.value(call(f.give, 1, cpus=2, memory=1)) == 1
        start_worker(tmp_path, stack, address, "plain", {"plain": 1})
        bench.until(lambda: bench.executor.info().resources, "the other worker is not seen")

        with pytest.raises(ResourcesUnavailable, match=r"asks for cpus=1, plain=1"):
            bench.submit(call(f.give, 2, resources={"plain": 1}))
        end(counting)
        bench.until(lambda: bench.executor.info().cpus == 1, "the worker that left is still seen")

        assert bench.value(call(f.give, 3, memory=1)) == 3
        assert bench.value(call(f.give, 4, resources={"plain": 1})) == 4
        bench.close()


def test_a_restarted_scheduler_is_a_lost_cluster(benches, tmp_path):
    """What was there before it is gone; the executor joins it when it is started again."""
    with ExitStack() as stack:
        with ExitStack() as first:
            address = start_scheduler(tmp_path, first)
            start_worker(tmp_path, first, address, "one")
            bench = benches(cluster_address=address)
        error, _ = lost(bench)
        assert "closed the connection" in str(error)
        bench.close()
        start_scheduler(tmp_path, stack, "--port", address.rpartition(":")[2])
        start_worker(tmp_path, stack, address, "one")
        bench.start()

        assert bench.value(call(f.give, 1)) == 1
        bench.close()


def test_two_executors_live_side_by_side(benches, tmp_path):
    """In one process, on clusters of their own or on the same."""
    with dask_cluster(tmp_path) as settings:
        here, there, too = benches(cpus=1), benches(**settings), benches(**settings)
        assert [bench.value(call(f.give, number)) for number, bench in enumerate((here, there, too))] == [0, 1, 2]

        there.close()

        assert too.value(call(f.give, 3)) == 3
        assert here.value(call(f.give, 4)) == 4
        too.close()


def test_a_local_cluster_listens_on_loopback_only(benches):
    """Every socket of every process."""
    benches(cpus=2, dashboard=True, dashboard_port=0)

    listening = set()
    for pid in session_of(newest_head()):
        inodes = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                    listening.add(fields[1].partition(":")[0])

    assert listening == {"0100007F"}


def test_a_local_scheduler_keeps_no_note_of_every_task(benches):
    """It has no spans, which would; and its workers, who have none either, report to it as before."""

    def spans(dask_scheduler=None, dask_worker=None):
        return "spans" in (dask_scheduler or dask_worker).extensions

    def last_seen(dask_scheduler):
        return [worker.last_seen for worker in dask_scheduler.workers.values()]

    client = benches(cpus=2).executor.session._client

    assert not client.run_on_scheduler(spans)
    assert list(client.run(spans).values()) == [False, False]
    before = client.run_on_scheduler(last_seen)
    until(lambda: min(client.run_on_scheduler(last_seen)) > max(before))


def test_closing_leaves_nothing(benches, tmp_path, monkeypatch):
    """No process, not even what a stage started, and no file."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bench = benches(cpus=2)
    session, child = newest_head(), tmp_path / "child"
    bench.submit(call(f.start_subprocess, str(child)))
    bench.until(lambda: child.exists() and child.read_text(), "the stage did not begin")
    assert len(session_of(session)) >= 4

    bench.close()

    assert session_of(session) == []
    assert list(tmp_path.iterdir()) == [child]


OWNER = """
import asyncio, json, sys
import psutil
sys.path[:0] = json.loads(sys.argv[1])
from executor_bench import call
import executor_functions as f
from flowtilla_executors.dask import DaskExecutor

async def main():
    async with DaskExecutor(cpus=1) as executor:
        executor.submit(call(f.start_subprocess, sys.argv[2]))
        print(psutil.Process().children()[0].pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_end_of_the_owner_leaves_nothing(number, tmp_path):
    """However its process ends, the cluster's processes, those of stages, and the files go."""
    child, temporary = tmp_path / "child", tmp_path / "tmp"
    temporary.mkdir()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, json.dumps(sys.path), str(child)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    session = int(owner.stdout.readline())
    until(lambda: child.exists() and child.read_text())

    owner.send_signal(number)
    owner.communicate()

    until(lambda: session_of(session) == [])
    assert list(temporary.iterdir()) == []


def test_signals_stay_the_owners(benches):
    """Dask takes no handler of this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    benches(cpus=1)

    assert {number: signal.getsignal(number) for number in before} == before


def test_the_environment_stays_as_it_was(benches):
    """Dask's nannies set variables for their workers; not here."""
    before = dict(os.environ)
    benches(cpus=1)

    assert dict(os.environ) == before


def test_starting_does_not_hold_up_the_event_loop(tmp_path):
    """Whoever else lives in it goes on."""

    async def live() -> float:
        worst, last = 0.0, time.monotonic()

        async def beat() -> None:
            nonlocal worst, last
            while True:
                await asyncio.sleep(0.01)
                worst, last = max(worst, time.monotonic() - last), time.monotonic()

        beating = asyncio.create_task(beat())
        async with DaskExecutor(cpus=1):
            pass
        beating.cancel()
        return worst

    assert asyncio.run(live()) < 1.0

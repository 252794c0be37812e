"""A Dask cluster that does not start, or cannot be joined, is said soon: with why, and with what to do."""

import asyncio
import os
import signal
import time
from contextlib import ExitStack

import pytest

from dask_cluster import end, start_scheduler, start_worker
from executor_bench import Bench
from fleet import until
from flowtilla.errors import ClusterUnreachable, ExecutorError
from flowtilla_executors.dask import DaskExecutor, connection, local

#: Seconds within which it must be known.
KNOWN = 10.0


def test_nobody_there_is_said_soon():
    """With the address, and what to check."""
    bench = Bench(DaskExecutor(cluster_address="tcp://127.0.0.1:1"))
    began = time.monotonic()

    with pytest.raises(ClusterUnreachable, match=r"tcp://127\.0\.0\.1:1 cannot be reached.*cluster_address"):
        bench.start()

    assert time.monotonic() - began < KNOWN


def test_a_cluster_without_workers_cannot_be_joined(tmp_path):
    """The message says how to start some."""
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)

        with pytest.raises(ClusterUnreachable, match=r"no workers: start some with `dask worker tcp://"):
            Bench(DaskExecutor(cluster_address=address)).start()


def test_a_cluster_whose_workers_turn_out_to_be_gone_cannot_be_joined(tmp_path, monkeypatch):
    """A scheduler that was cut off may still have them on its list: joined, it would refuse every call there is."""
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        worker = start_worker(tmp_path, stack, address, "w")
        prepare = connection.prepare

        async def prepared(client, *arguments):
            await prepare(client, *arguments)
            end(worker)
            while (await client.scheduler.identity(n_workers=-1))["workers"]:
                await asyncio.sleep(0.05)

        monkeypatch.setattr(connection, "prepare", prepared)

        with pytest.raises(ClusterUnreachable, match="no workers"):
            Bench(DaskExecutor(cluster_address=address)).start()


SHAPES = [{"cpus": 2}, {"adaptive": {"min": 0, "max": 2}}]


@pytest.mark.parametrize("shape", SHAPES, ids=",".join)
def test_workers_without_memory_are_said_soon(tmp_path, monkeypatch, shape):
    """With how much they take with nothing to do; nothing is left of them."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    began = time.monotonic()

    with pytest.raises(
        ExecutorError, match=r"start: a worker process takes [\d,]+ bytes with .* limit of 50,000,000: give .*`memory`"
    ):
        Bench(DaskExecutor(memory=50_000_000, **shape)).start()

    assert time.monotonic() - began < KNOWN
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", SHAPES, ids=",".join)
def test_workers_that_cannot_start_are_said_soon(monkeypatch, shape):
    """After some tries, with the last that was said; also where they come with the work, which would wait for ever."""
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", "nowhere_to_be_found")
    began = time.monotonic()

    with pytest.raises(
        ExecutorError, match=r"(?s)did not start: it ended itself.*No module named 'nowhere_to_be_found'"
    ):
        Bench(DaskExecutor(**shape)).start()

    assert time.monotonic() - began < KNOWN


def test_a_local_cluster_that_does_not_get_ready_is_given_up(tmp_path, monkeypatch):
    """After two minutes, or here at once; nothing is left of it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(local, "_START", 0.1)

    with pytest.raises(ExecutorError, match=r"did not start: it was not ready after 0\.1s\. If memory is short"):
        Bench(DaskExecutor(cpus=1)).start()

    assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_does_not_get_ready_is_given_up(tmp_path, monkeypatch):
    """One whose worker hangs; it may be tried again."""
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        worker = start_worker(tmp_path, stack, address, "hanging")
        until(lambda: "Registered to" in (tmp_path / "worker.log").read_text())
        monkeypatch.setattr(connection, "_PREPARE", 1.0)
        os.killpg(worker.pid, signal.SIGSTOP)

        with pytest.raises(
            ClusterUnreachable, match=rf"{address} was not ready for stages in time: a worker process may hang"
        ):
            Bench(DaskExecutor(cluster_address=address)).start()

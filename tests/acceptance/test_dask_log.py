"""What a worker's log says when Dask's scheduler dies under it: what flowtilla has to say, and nothing of Dask's."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from dask_cluster import start_scheduler, start_worker
from fleet import MODULES, Fleet, until


@pytest.fixture
def executor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The settings of a Dask executor with a cluster of its own, or with one by address."""
    with ExitStack() as stack:
        if request.param == "local":
            yield {"target": "dask", "cpus": 1}
            return
        address = start_scheduler(tmp_path, stack)
        start_worker(tmp_path, stack, address, "one")
        yield {"target": "dask", "cluster_address": address, "py_modules": [str(MODULES / "fleet_stages.py")]}


def scheduler(worker: int, folder: Path) -> int:
    """Returns the process of the scheduler: a child of the worker, or of the test, which may have others."""
    children = [*psutil.Process(worker).children(), *psutil.Process().children()]
    mine = rf"dask\.head|dask scheduler .*{folder}"
    return next(one.pid for one in children if re.search(mine, " ".join(one.cmdline())))


@pytest.mark.parametrize(
    ("executor", "how"),
    [("local", signal.SIGKILL), ("remote", signal.SIGKILL), ("remote", signal.SIGSTOP)],
    indirect=["executor"],
    ids=["local-killed", "remote-killed", "remote-hanging"],
)
def test_a_dead_scheduler_leaves_no_traceback(
    fleet: Fleet, executor: dict[str, Any], how: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when much was still to be sent to it: one error says what happened, and every other line is ours too."""
    monkeypatch.setenv("FLOWTILLA__LOGGING__FORMAT", "json")
    fleet.start("w", executor=executor, grace="0s")
    until(lambda: "executor is ready" in fleet.said("w"))
    victim = scheduler(fleet.workers["w"].pid, tmp_path)
    os.kill(victim, signal.SIGSTOP)  # what it is sent now stays in the worker
    runs = [fleet.submit({"name": "echo"}, input={"x": "x" * 900_000}) for _ in range(8)]
    until(lambda: [run.state for run in runs] == ["running"] * 8)

    os.kill(victim, how)

    until(lambda: [run.state for run in runs] == ["queued"] * 8)
    fleet.kill("w", signal.SIGTERM)
    assert fleet.ended("w") == 0
    assert "Traceback" not in fleet.said("w")
    lines = [json.loads(line) for line in fleet.said("w").splitlines()]
    assert [line for line in lines if not line["logger"].startswith("flowtilla")] == []
    (error,) = [line["message"] for line in lines if line["level"] == "ERROR"]
    assert re.search(
        r"the Dask cluster at tcp://\S+ (died|closed the connection|does not answer): .*\(8\) go back", error
    )

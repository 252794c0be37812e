"""The executor that docs/custom-executors.md shows, in a package of a user's own, named by its dotted path."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from documents import write_files
from fleet import Fleet, until
from flowtilla.errors import RunFailed

EXECUTOR = {"target": "my_compute.pool.PoolExecutor", "size": "4"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The document's files: the executor in a package, the test beside it; gives the folder."""
    folder = tmp_path / "my_compute"
    folder.mkdir()
    (folder / "__init__.py").touch()
    names = {file.name for file in write_files("docs/custom-executors.md", folder)}
    assert names == {"pool.py", "test_pool.py"}
    (folder / "test_pool.py").rename(tmp_path / "test_pool.py")
    return tmp_path


def test_a_worker_runs_on_it(fleet: Fleet, package: Path) -> None:
    """Values, maps, log lines and artifacts go through it, and the fleet shows its kind."""
    fleet.start("w", executor=EXECUTOR)
    stages = (
        {"name": "numbers", "target": "echo"},
        {"name": "doubles", "target": "double", "type": "parameterized", "depends_on": ["numbers"]},
        {"name": "all", "target": "echo", "depends_on": ["doubles"]},
        {"name": "number", "target": "stores", "map_on": "xs", "type": "parameterized"},
    )

    run = fleet.submit(*stages, input={"x": list(range(50)), "xs": [7]})

    assert run.result(timeout=30) == {"all": [2 * x for x in range(50)], "number": [7]}
    assert run.artifacts["number"].read() == {"x": 7}
    assert [line.message for line in run.logs()] == ["storing 7"]
    (worker,) = fleet.client.workers()
    assert (worker.executor, worker.cluster, worker.ready) == ("pool", "a pool of 4 threads", True)


def test_what_fails_there_is_told_as_everywhere(fleet: Fleet, package: Path) -> None:
    """A stage's error and a stage that takes too long fail their runs; the worker goes on."""
    fleet.start("w", executor=EXECUTOR)

    with pytest.raises(RunFailed, match="in stage 'fails': ValueError: as planned"):
        fleet.submit({"name": "fails"}).result(timeout=30)
    with pytest.raises(RunFailed, match="StageTimeout"):
        fleet.submit({"name": "gate", "timeout": 0.1}).result(timeout=30)
    assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1


def test_a_run_on_it_can_be_cancelled(fleet: Fleet, package: Path) -> None:
    """The stage hears of it, and its thread is free again."""
    fleet.start("w", executor=EXECUTOR | {"size": "1"})
    run = fleet.submit({"name": "gate"})
    until(lambda: list(run.logs()))

    run.cancel()

    assert run.wait(timeout=30) == "cancelled"
    assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1


def test_its_own_test_passes(package: Path) -> None:
    """With `run_workflow`, as the document shows."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_pool.py"]
    env = os.environ | {"PYTHONPATH": str(package)}
    done = subprocess.run(command, cwd=package, env=env, capture_output=True, text=True, timeout=60)
    assert "1 passed" in done.stdout, done.stdout + done.stderr

"""A run is cancelled: soon nothing of it runs any more, wherever its stages are; or its log says that nobody knows."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import flowtilla
from fleet import Fleet, until

#: Seconds from the wish to the run's end, by when nothing of it runs.
BOUND = 5.0

BACKENDS = {
    "processes": {"target": "local", "cpus": 4},
    "ray": {"target": "ray", "cpus": 4, "object_store_memory": "100MB"},
    "dask": {"target": "dask", "cpus": 4},
}

#: Three stages side by side: one that looks, one that does not, and a mapped one.
STAGES = [
    {"name": "tidies", "target": "cancel_stages.tidies"},
    {"name": "ignores", "target": "cancel_stages.ignores"},
    {"name": "item", "target": "cancel_stages.item", "type": "parameterized", "map_on": "x"},
]


def start(fleet: Fleet, executor: dict[str, Any], **settings: Any) -> None:
    """Starts a worker, and waits until stages can run."""
    fleet.start("w", executor=executor, modules='["cancel_stages"]', **settings)
    until(lambda: [one.ready for one in fleet.client.workers()] == [True], seconds=60)


def submit(fleet: Fleet, folder: Path, stages: list[dict[str, Any]], **options: Any) -> flowtilla.Run:
    """Submits a run whose stages tell of themselves in a folder."""
    folder.mkdir()
    workflow = flowtilla.Workflow("tested", stages)
    return fleet.client.submit(workflow, {"folder": str(folder), "x": [1, 2, 3, 4]}, **options)


def begun(run: flowtilla.Run, folder: Path, count: int) -> None:
    """Waits until so many stages or items have told of themselves, and the one that looks has registered clean-up."""
    until(lambda: len([file for file in folder.iterdir() if file.stat().st_size]) >= count, seconds=60)
    until(lambda: "waits" in [line.message for line in run.logs()])


def running(folder: Path) -> list[str]:
    """Returns the stages and items of which something still runs."""
    files = [file for file in folder.iterdir() if file.stat().st_size]
    return [file.name for file in files if "left" not in file.read_text() and alive(int(file.read_text().split()[0]))]


def alive(pid: int) -> bool:
    """Returns whether a process runs; one that waits for its parent to notice its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def by_client(fleet: Fleet, run: flowtilla.Run) -> float:
    at = time.monotonic()
    run.cancel()
    return at


def by_command(fleet: Fleet, run: flowtilla.Run) -> float:
    command = [sys.executable, "-m", "flowtilla.cli", "cancel", run.id]
    subprocess.run(command, env=os.environ | {"FLOWTILLA__REDIS__URL": fleet.url}, check=True, capture_output=True)
    # Python's own start, on a machine that has other things to do, is not what is measured.
    return time.monotonic()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_of_a_cancelled_run_goes_on(fleet: Fleet, tmp_path: Path, backend: str) -> None:
    """Within five seconds, from the client and from the command line; a stage that looks had the time to tidy up."""
    start(fleet, BACKENDS[backend])
    for wish in (by_client, by_command):
        folder = tmp_path / wish.__name__
        run = submit(fleet, folder, STAGES)
        begun(run, folder, 4)  # four cpus, and two of the four items wait for room

        at = wish(fleet, run)
        assert run.wait(timeout=30) == "cancelled"
        took = time.monotonic() - at
        print(f"{wish.__name__}: {took:.2f} s")

        # Ray says that a task has ended a few milliseconds before its process has.
        until(lambda: not running(folder), seconds=0.5)  # noqa: B023
        assert took < BOUND
        assert (folder / "tidied").exists()
        lines = [line.message for line in run.logs()]
        assert lines.count("clean-up of the stage") == 1
        assert not [line for line in lines if "not known" in line]
        assert {record.state for record in run.stages.values()} == {"cancelled"}


def test_the_log_says_what_could_not_be_stopped(fleet: Fleet, tmp_path: Path) -> None:
    """A thread in native code cannot; the run ends all the same, in time, and its log names the stage once."""
    start(fleet, {"target": "local", "mode": "threads", "cpus": 4})
    run = submit(fleet, tmp_path / "run", [{"name": "deaf", "target": "cancel_stages.deaf"}])
    until(lambda: (tmp_path / "run" / "deaf").exists())

    at = time.monotonic()
    run.cancel()
    assert run.wait(timeout=30) == "cancelled"

    assert time.monotonic() - at < BOUND
    (line,) = run.logs()
    assert (line.stage, line.level) == ("deaf", "WARNING")
    assert line.message == "stage 'deaf' was told to stop, and 4 s later it is not known whether it has"
    until(lambda: not running(tmp_path / "run"))


# Long enough for Ray to start four processes.
@pytest.mark.parametrize(("backend", "seconds"), [("processes", 8), ("ray", 25), ("dask", 12)])
def test_the_timeout_of_a_run_stops_its_stages(fleet: Fleet, tmp_path: Path, backend: str, seconds: int) -> None:
    """As a cancel does: when the run has failed nothing of it runs."""
    start(fleet, BACKENDS[backend])
    run = submit(fleet, tmp_path / "run", STAGES, timeout=seconds)
    begun(run, tmp_path / "run", 4)

    assert run.wait(timeout=30) == "failed"

    until(lambda: not running(tmp_path / "run"), seconds=0.5)
    assert (tmp_path / "run" / "tidied").exists()
    assert run.record.error is not None
    assert f"the run took longer than its timeout of {seconds} s" in run.record.error.message


def test_stages_of_a_run_that_is_handed_back_are_told(fleet: Fleet, tmp_path: Path) -> None:
    """They tidy up, and the run waits for another worker."""
    start(fleet, BACKENDS["processes"])
    run = submit(fleet, tmp_path / "run", STAGES[:2])
    begun(run, tmp_path / "run", 2)

    fleet.kill("w", signal.SIGTERM)
    until(lambda: "asked to stop" in fleet.said("w"))
    fleet.kill("w", signal.SIGTERM)
    assert fleet.ended("w") == 0

    assert run.state == "queued"
    assert (tmp_path / "run" / "tidied").exists()
    assert not running(tmp_path / "run")
    assert "clean-up of the stage" in [line.message for line in run.logs()]

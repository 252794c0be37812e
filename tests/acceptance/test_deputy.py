"""A stage that holds its worker's interpreter, in C, keeps its run: a deputy renews for the worker."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis

import flowtilla
from fleet import HEARTBEAT, LEASE, Fleet, until

#: Seconds for which a stage holds the interpreter: more than three leases.
HELD = 7

#: Seconds within which another worker has what a worker lost: the lease, the look each second, and a busy machine.
TAKEN_OVER = LEASE + 3


def hold(fleet: Fleet, seconds: int = HELD, target: str = "holds") -> flowtilla.Run:
    """Submits a run whose stage holds its worker's interpreter, and returns when it does so."""
    given = {"folder": str(fleet.folder), "seconds": seconds}
    run = fleet.submit({"name": "holds", "target": target}, input=given)
    fleet.begun()
    return run


def deputies(fleet: Fleet, name: str) -> list[psutil.Process]:
    """Returns the deputies of a worker that run: one, or none."""
    children = [child for child in psutil.Process(fleet.workers[name].pid).children() if not gone(child)]
    return [child for child in children if "flowtilla_worker.stand_in" in child.cmdline()]


def gone(process: psutil.Process) -> bool:
    """Returns whether a process has ended; whoever has to wait for it may not have yet."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def ignores(pid: int, signal_number: int) -> bool:
    """Returns whether a process ignores a signal, as a deputy does once it has imported what it needs."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigIgn:")[1].split()[0], 16) >> (signal_number - 1) & 1)


def lost(run: flowtilla.Run) -> tuple[int, int]:
    """Returns how often a run began, and how many workers it lost."""
    return run.record.attempt, run.record.losses


def test_a_stage_that_holds_the_interpreter_keeps_its_run(fleet: Fleet) -> None:
    """For more than three leases no Python runs in the worker, and no other gets the run, which ends in one attempt."""
    fleet.start("holder")
    run = hold(fleet)
    fleet.start("other")

    assert run.result(timeout=60) == HELD
    assert (*lost(run), run.record.worker) == (1, 0, "holder")
    assert "runs but does not beat" in fleet.said("holder")
    assert "lease expired" not in fleet.said("other")


def test_it_has_all_its_other_runs_too(fleet: Fleet) -> None:
    """What else the worker has in hand when a stage seizes it stays with it as well, and goes on afterwards."""
    fleet.start("holder")
    beside = [fleet.submit({"name": "gate", "target": "stubborn"}) for _ in range(3)]
    until(lambda: all(run.state == "running" for run in beside))
    run = fleet.submit({"name": "holds"}, input={"folder": str(fleet.folder), "seconds": HELD})
    until(lambda: run.state == "running")
    fleet.start("other")

    assert run.result(timeout=60) == HELD
    fleet.open_gate()
    assert [one.wait(timeout=30) for one in beside] == ["finished"] * 3
    assert {lost(one) for one in (run, *beside)} == {(1, 0)}


@pytest.mark.parametrize("stage", ["holds", "gate"])
def test_a_worker_that_is_stopped_loses_its_runs_all_the_same(fleet: Fleet, stage: str) -> None:
    """Also when the worker alone is stopped, and its deputy runs; while a stage holds the interpreter, or none."""
    fleet.start("first")
    if stage == "holds":
        run = hold(fleet, 60)
        until(lambda: "runs but does not beat" in fleet.said("first"))
    else:
        run = fleet.submit({"name": "gate"})
        fleet.begun()
    fleet.start("second", mode="processes")
    fleet.kill("first", signal.SIGSTOP)
    stopped = time.monotonic()

    fleet.begun(attempt=2)

    assert time.monotonic() - stopped < TAKEN_OVER
    assert not gone(deputies(fleet, "first")[0])
    run.cancel()
    assert run.wait(timeout=30) == "cancelled"


@pytest.mark.parametrize("target", ["holds", "forks_and_holds"])
def test_a_worker_that_is_killed_leaves_no_deputy(fleet: Fleet, target: str) -> None:
    """Not even where a process that the stage forked keeps open what the worker had; and its run is taken over."""
    fleet.start("first")
    run = hold(fleet, 60, target)
    until(lambda: "runs but does not beat" in fleet.said("first"))
    (deputy,) = deputies(fleet, "first")
    fleet.start("second", mode="processes")
    try:
        fleet.kill("first", signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: gone(deputy), seconds=2)
        fleet.begun(attempt=2)
        assert time.monotonic() - killed < TAKEN_OVER
    finally:
        if target == "forks_and_holds":
            os.kill(int((fleet.folder / "child").read_text()), signal.SIGKILL)
    run.cancel()
    assert run.wait(timeout=30) == "cancelled"


def test_a_deputy_that_dies_is_started_again(fleet: Fleet) -> None:
    """By the next heartbeat; and the new one knows what is in hand."""
    fleet.start("holder")
    (first,) = deputies(fleet, "holder")
    first.kill()
    until(lambda: gone(first))
    until(lambda: deputies(fleet, "holder"), seconds=HEARTBEAT + 2)

    run = hold(fleet)
    fleet.start("other")

    assert run.result(timeout=60) == HELD
    assert lost(run) == (1, 0)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_of_them_leaves_the_worker_its_deputy(fleet: Fleet, how: signal.Signals) -> None:
    """Docker, systemd or a terminal tells every process to stop: the run that holds the interpreter still ends well."""
    fleet.start("holder")
    run = hold(fleet)
    fleet.start("other")
    until(lambda: "runs but does not beat" in fleet.said("holder"))
    (deputy,) = deputies(fleet, "holder")

    for process in (deputy.pid, fleet.workers["holder"].pid):
        os.kill(process, how)

    assert fleet.ended("holder", seconds=HELD + 30) == 0
    assert run.result(timeout=10) == HELD
    assert lost(run) == (1, 0)
    assert gone(deputy)


def test_a_run_that_is_to_be_cancelled_is_let_go(fleet: Fleet) -> None:
    """The worker does not hear of it, so another one ends the run when its lease has run out."""
    fleet.start("holder")
    run = hold(fleet, 20)
    fleet.start("other")
    until(lambda: "runs but does not beat" in fleet.said("holder"))

    run.cancel()

    assert run.wait(timeout=LEASE + TAKEN_OVER) == "cancelled"
    assert not (fleet.folder / "begun-2").exists()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
def test_only_stages_that_share_the_interpreter_need_one(fleet: Fleet) -> None:
    """On processes there is none; on threads it is small, and nothing secret stands on its command line."""
    fleet.start("processes", mode="processes")
    fleet.start("threads")
    until(lambda: "is ready" in fleet.said("processes"))

    assert deputies(fleet, "processes") == []
    (deputy,) = deputies(fleet, "threads")
    until(lambda: ignores(deputy.pid, signal.SIGTERM))
    assert deputy.cmdline()[1:3] == ["-m", "flowtilla_worker.stand_in"]
    assert not any(fleet.url in part for part in deputy.cmdline())
    assert deputy.memory_info().rss < 24 * 1024 * 1024


#: A process with a deputy that renews for two seconds at most, and a stage that takes longer.
_HELD_FOR_LONG = """
import ctypes, json, sys
from flowtilla.settings import Settings
from flowtilla_worker.deputy import Deputy

deputy = Deputy(Settings.model_validate(json.loads(sys.argv[1])), longest=2.0)
deputy.begin("holder", lambda: [("held", "token")])
for _ in range(2):
    ctypes.PyDLL(None).sleep(5)
    deputy.beaten()
"""


def test_what_never_returns_holds_nothing_for_ever(redis: Redis, fleet: Fleet, tmp_path: Path) -> None:
    """After the longest time the lease is renewed no more, which is said once; a beat makes all as it was."""
    worker = {"lease": f"{LEASE}s", "heartbeat": f"{HEARTBEAT}s"}
    settings: dict[str, Any] = {"redis": fleet.redis, "services": {"worker": worker}}
    redis.hset("rq:job:held", "token", "token")
    command = [sys.executable, "-c", _HELD_FOR_LONG, json.dumps(settings)]
    with (tmp_path / "said").open("w") as said:
        holder = subprocess.Popen(command, stderr=said)
    seen: list[tuple[float, float]] = []

    def ended() -> bool:
        if deadline := redis.zscore("flowtilla:leases", "held"):
            seen.append((time.time(), deadline / 1000))
        return holder.poll() is not None

    until(ended, seconds=30)

    lines = (tmp_path / "said").read_text().splitlines()
    assert [" ".join(line.split()[1:2]) for line in lines] == ["WARNING", "ERROR"] * 2
    assert f"worker holder (process {holder.pid})" in lines[1] and "take its runs: held." in lines[1]
    assert any(now > deadline for now, deadline in seen), "it was renewed for ever"
    assert len({deadline for _, deadline in seen}) == pytest.approx(10, abs=3)

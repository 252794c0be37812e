"""A worker whose event loop hangs ends, and says where; one that was only stopped does not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import flowtilla
from fleet import Fleet, until
from flowtilla_worker.watchdog import HUNG

#: A process with a watchdog that is patient for half a second, and an event loop in which something happens.
_WATCHED = """
import asyncio, ctypes, logging, sys, threading, time
from flowtilla_worker import watchdog

logging.basicConfig()
watchdog._LEAST, watchdog._LAST_WORDS = 0.5, 1.0

def look(dog):
    while True:
        dog.look()
        time.sleep(0.02)

def blocks():
    time.sleep(60)

def blocks_the_log():
    with logging.getLogger().handlers[0].lock:
        time.sleep(60)

def holds_the_interpreter():
    ctypes.PyDLL(None).sleep(3)

async def main():
    dog = watchdog.Watchdog(asyncio.get_running_loop(), lease=0.05)
    threading.Thread(target=look, args=(dog,), daemon=True).start()
    await asyncio.sleep(0.2)
    await {what}
    await asyncio.sleep(1.5)

async def on_the_loop(what):
    what()

asyncio.run(main())
"""


def watched(what: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WATCHED.replace("{what}", what)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_worker_whose_event_loop_hangs_ends_and_another_goes_on(fleet: Fleet) -> None:
    """It renews no lease any more after the stated time, ends with a code of its own, and its log shows the stack."""
    executor = {"target": "hanging_executor.HangingExecutor", "folder": str(fleet.folder)}
    (fleet.folder / "hang").touch()
    fleet.start("hangs", executor=executor, lease="1s", heartbeat="200ms")
    begun = time.monotonic()
    run = fleet.submit({"name": "mark"})
    until(lambda: fleet.marks())
    fleet.start("other", lease="1s", heartbeat="200ms")

    assert fleet.ended("hangs", seconds=60) == HUNG
    took = time.monotonic() - begun

    assert run.result(timeout=30) == str(fleet.folder)
    assert (run.record.worker, run.record.attempt) == ("other", 2)
    assert took > 10
    assert "the event loop has hung for 10 s" in fleet.said("hangs")
    assert "_hang_in_here" in fleet.said("hangs")


def test_a_worker_that_was_stopped_for_long_is_no_worker_that_hangs(fleet: Fleet) -> None:
    """Stopped like one on a suspended laptop, for longer than its loop may hang, it works on afterwards."""
    fleet.start("w", lease="1s", heartbeat="200ms")
    fleet.submit({"name": "nothing"}).wait(timeout=30)

    fleet.kill("w", signal.SIGSTOP)
    wake = time.monotonic() + 12
    until(lambda: time.monotonic() > wake)
    fleet.kill("w", signal.SIGCONT)

    assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1
    settled = time.monotonic() + 3
    until(lambda: time.monotonic() > settled)
    assert fleet.workers["w"].poll() is None


@pytest.mark.parametrize("what", ["blocks", "blocks_the_log"])
def test_a_loop_that_blocks_ends_the_process(what: str) -> None:
    """Also when it is the log that it hangs in, and nothing more can be said."""
    process = watched(f"on_the_loop({what})")

    _, said = process.communicate(timeout=60)

    assert process.returncode == HUNG
    assert ("in blocks\n" in said) == (what == "blocks")


@pytest.mark.parametrize("what", ["asyncio.to_thread(holds_the_interpreter)", "on_the_loop(holds_the_interpreter)"])
def test_code_that_holds_the_interpreter_is_no_loop_that_hangs(what: str) -> None:
    """Nothing of the process runs meanwhile, so nothing was waited for."""
    process = watched(what)

    _, said = process.communicate(timeout=60)

    assert (process.returncode, said) == (0, "")


def test_a_suspended_process_is_no_loop_that_hangs(tmp_path: Path) -> None:
    """Time in which nobody looked does not count, again and again."""
    process = watched("asyncio.sleep(0.5)")
    for _ in range(3):
        os.kill(process.pid, signal.SIGSTOP)
        wake = time.monotonic() + 1
        until(lambda wake=wake: time.monotonic() > wake)
        os.kill(process.pid, signal.SIGCONT)

    _, said = process.communicate(timeout=60)

    assert (process.returncode, said) == (0, "")


#: A module that takes as long to import as its file `open` is missing.
_SLOW = """
import time
from pathlib import Path

here = Path(__file__).parent
with (here / "imported").open("a") as file:
    file.write("once ")
while not (here / "open").exists():
    time.sleep(0.01)

def first():
    return 1

def second(x):
    return x + 1
"""


def test_a_target_that_takes_long_to_import_holds_up_no_other_run(fleet: Fleet) -> None:
    """Neither one that is under way nor one that comes; it is imported once, and what waits for it goes on then."""
    (fleet.folder / "slowly.py").write_text(_SLOW)
    fleet.start("w", allowed_targets='["slowly.*"]')
    slow = flowtilla.Workflow(
        "slow",
        [{"name": "a", "target": "slowly.first"}, {"name": "b", "target": "slowly.second", "depends_on": ["a"]}],
    )
    waiting = [fleet.client.submit(slow) for _ in range(3)]
    until((fleet.folder / "imported").exists)
    assert fleet.submit({"name": "echo"}, input={"x": 5}).result(timeout=10) == 5
    waiting[0].cancel()
    assert waiting[0].wait(timeout=10) == "cancelled"
    fleet.open_gate()
    assert [run.result(timeout=30) for run in waiting[1:]] == [2, 2]
    assert (fleet.folder / "imported").read_text() == "once "

"""However the worker ends, nothing of its Ray cluster stays behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray")

from ray_processes import members

from fleet import until
from flowtilla_executors.local.directory import PrivateDirectory
from flowtilla_executors.ray import session

WORKER = """
import asyncio, sys
sys.path[:0] = sys.argv[2].split(":")
import executor_functions as f
import ray_functions as r
from executor_bench import call
from flowtilla_executors.ray import RayExecutor
from ray_processes import drivers

async def main():
    async with RayExecutor(cpus=1, object_store_memory=10**8) as executor:
        left = executor.submit(call(r.leave_subprocess, sys.argv[1]))
        await executor.outcome(left)
        big = executor.submit(call(f.give, "x" * 10**6))
        await executor.outcome(big)
        running = executor.submit(call(f.wait_for_ever))
        print(*drivers(), flush=True)
        await asyncio.to_thread(sys.stdin.readline)

if __name__ == "__main__":
    asyncio.run(main())
"""


class Worker:
    """A process with a Ray executor whose calls run.

    Args:
        folder: of the test.
    """

    def __init__(self, folder: Path) -> None:
        script, note = folder / "worker.py", folder / "subprocess"
        script.write_text(WORKER)
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(note), ":".join(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": "/tmp"},
        )
        assert self.process.stdout is not None
        self.driver = int(self.process.stdout.readline())
        self.stray = int(note.read_text())
        commands = [" ".join(psutil.Process(pid).cmdline()) for pid in members(self.driver, "raylet/raylet")]
        self.folder = next(Path(f"/tmp/{part}") for part in commands[0].split("/") if part.startswith("flowtilla-"))
        assert self.folder.is_dir()

    def end(self) -> None:
        """Kills what is left."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.communicate()
        session.end(self.driver)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    started = Worker(tmp_path)
    yield started
    started.end()


def _close(worker: Worker) -> None:
    worker.process.communicate("\n", timeout=30)


def _terminate(worker: Worker) -> None:
    worker.process.terminate()


def _kill(worker: Worker) -> None:
    worker.process.kill()


def _kill_driver_too(worker: Worker) -> None:
    os.kill(worker.driver, signal.SIGKILL)
    worker.process.kill()


def _but_agents(driver: int) -> set[int]:
    """Returns the living processes of a driver's session, but for Ray's agents."""
    agents = [pid for name in ("Agent", "agent.py", "runtime_env/agent/main.py") for pid in members(driver, name)]
    return set(members(driver)) - set(agents)


@pytest.mark.parametrize("end", [_close, _terminate, _kill])
def test_nothing_stays_behind(worker: Worker, end: Callable[[Worker], None]) -> None:
    """No process, so no socket; nothing that a call started; no folder, no file in shared memory."""
    assert len(members(worker.driver)) > 5

    end(worker)

    until(lambda: not members(worker.driver), 15)
    until(lambda: not worker.folder.exists())
    assert not psutil.pid_exists(worker.stray) or psutil.Process(worker.stray).status() == psutil.STATUS_ZOMBIE
    assert list(Path("/dev/shm").glob("plasma*")) == []


@pytest.mark.alarm(180)
def test_a_driver_process_killed_with_its_worker_leaves_only_files(worker: Worker) -> None:
    """Ray's processes go by themselves, but two agents take a minute; the next start removes the files."""
    _kill_driver_too(worker)

    # A process that Ray was just starting looks for its cluster for a minute, once it has started.
    until(lambda: not _but_agents(worker.driver), 120)
    until(lambda: worker.process.poll() is not None)
    # While the agents live they may write there again.
    until(lambda: PrivateDirectory(Path("/tmp")).close() or not worker.folder.exists(), 90)

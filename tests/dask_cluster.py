"""Dask clusters for tests, started with the `dask` command like an operator would."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fleet import until

#: Three lives for a call, as everywhere; Dask's own default gives it four.
CONFIGURATION = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "2", "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}


@contextmanager
def dask_cluster(folder: Path, cpus: int = 2, resources: dict[str, float] | None = None) -> Iterator[dict[str, Any]]:
    """Runs a scheduler and workers of one thread each, and yields the executor's settings that reach them.

    Args:
        folder: for their files.
        cpus: how many workers.
        resources: logical resources, dealt out to the workers unit by unit.
    """
    with ExitStack() as stack:
        address = start_scheduler(folder, stack)
        for number, share in enumerate(_dealt(resources or {}, cpus)):
            start_worker(folder, stack, address, f"worker-{number}", share)
        until(lambda: (folder / "worker.log").read_text().count("Registered to") >= cpus)
        yield {"cluster_address": address}


def start_scheduler(folder: Path, stack: ExitStack, *arguments: str) -> str:
    """Starts a scheduler that ends with the stack, and returns its address."""
    found = folder / "scheduler.json"
    found.unlink(missing_ok=True)
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(found)]
    start(folder, stack, "scheduler", *options, *arguments)

    def address() -> str | None:
        with suppress(OSError, ValueError):
            return str(json.loads(found.read_text())["address"])
        return None

    return until(address)


def start_worker(
    folder: Path, stack: ExitStack, address: str, name: str, resources: dict[str, float] | None = None, *arguments: str
) -> "subprocess.Popen[bytes]":
    """Starts a nanny with a worker of one thread, which ends with the stack."""
    options = ["--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard", "--name", name]
    options += ["--local-directory", str(folder), "--memory-limit", "2GB"]
    if resources:
        options += ["--resources", " ".join(f"{key}={amount}" for key, amount in resources.items())]
    return start(folder, stack, "worker", address, *options, *arguments)


def start(folder: Path, stack: ExitStack, command: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """Starts a `dask` command in a session of its own, all of which ends with the stack."""
    env = os.environ | CONFIGURATION | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    env["DASK_TEMPORARY_DIRECTORY"] = str(folder)
    with (folder / f"{command}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", command, *arguments],
            stdout=log,
            stderr=log,
            env=env,
            start_new_session=True,
        )
    stack.callback(end, process)
    return process


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kills a process that `start` started, and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _dealt(resources: dict[str, float], cpus: int) -> list[dict[str, float]]:
    shares: list[dict[str, float]] = [{} for _ in range(cpus)]
    units = [name for name, amount in resources.items() for _ in range(int(amount))]
    for number, name in enumerate(units):
        share = shares[number % cpus]
        share[name] = share.get(name, 0) + 1
    return shares

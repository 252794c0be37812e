"""Starts a cluster on this machine, in processes of its own, and ends it without a trace."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flowtilla.errors import ExecutorClosed, ExecutorError
from flowtilla_executors.dask import head
from flowtilla_executors.dask.needs import CPU, GPU, MEMORY
from flowtilla_executors.failures import ending
from flowtilla_executors.local.directory import PrivateDirectory
from flowtilla_executors.outcome import LIVES

_LOOPBACK = "127.0.0.1"

#: Characters of what the cluster's processes wrote that an error shows.
_TAIL = 2000


@dataclass(frozen=True)
class Plan:
    """What a local cluster is made of.

    Args:
        processes: how many worker processes.
        threads: how many calls each runs at once.
        memory: bytes of each; a fair share of the machine's when None.
        resources: logical resources of all together, dealt out to the processes unit by unit.
        devices: GPUs, one for each of the first processes.
        adaptive: the least and the most processes, or None when their number is fixed.
        env_vars: of stages.
        dashboard: where Dask's dashboard listens, or None.
        quiet: whether the cluster's own messages go to a file that nobody reads unless it fails.
    """

    processes: int
    threads: int = 1
    memory: int | None = None
    resources: dict[str, float] = field(default_factory=dict)
    devices: Sequence[str] = ()
    adaptive: tuple[int, int] | None = None
    env_vars: dict[str, str] = field(default_factory=dict)
    dashboard: str | None = None
    quiet: bool = True

    def with_devices(self, devices: Sequence[str]) -> "Plan":
        """Returns the plan with devices that are there."""
        return replace(self, devices=tuple(devices))


class LocalCluster:
    """A scheduler and its workers on this machine; reached only from it.

    Args:
        plan: what it is made of.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._directory = PrivateDirectory(Path(tempfile.gettempdir()))
        self._log = self._directory.path / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def start(self) -> str:
        """Starts it and returns its address; blocks for as long as that takes.

        Raises:
            ExecutorError: it ended before it had an address.
        """
        reading, writing = os.pipe()
        with os.fdopen(reading) as report:
            try:
                process = self._spawn(writing)
            finally:
                os.close(writing)
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(self._orders(writing)).encode() + b"\n")
                process.stdin.flush()
            answer = report.read()
        if not answer:
            raise ExecutorError(
                f"the local Dask cluster did not start: {self.death() or 'it said nothing'}. {self._said()}"
            )
        return str(json.loads(answer)["address"])

    def death(self) -> str | None:
        """Returns how the cluster's scheduler ended, or None while it lives."""
        code = None if self._process is None else self._process.poll()
        return None if code is None else ending(code)

    def close(self) -> None:
        """Ends all of it at once, stages and what they started included."""
        with self._lock:
            self._closed = True
        if self._process is not None:
            # Before anybody waits for the process: until then its number, which is the group's, is not given away.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate()
        self._directory.close()

    def _spawn(self, report: int) -> "subprocess.Popen[bytes]":
        # The lock, since whoever gave up waiting for the start closes from another thread.
        with self._lock, self._log.open("wb") as log:
            if self._closed:
                raise ExecutorClosed("the local Dask cluster was closed before it had started")
            self._process = subprocess.Popen(
                [sys.executable, "-c", head.START],
                stdin=subprocess.PIPE,
                stdout=log if self._plan.quiet else sys.stderr.fileno(),
                stderr=log if self._plan.quiet else sys.stderr.fileno(),
                pass_fds=[report],
                start_new_session=True,
            )
            return self._process

    def _said(self) -> str:
        return "It said: " + self._log.read_text(errors="replace")[-_TAIL:] if self._plan.quiet else ""

    def _orders(self, report: int) -> dict[str, Any]:
        plan = self._plan
        shares = _dealt(plan.resources, plan.processes)
        scheduler: dict[str, Any] = {"host": _LOOPBACK, "port": 0, "dashboard": plan.dashboard is not None}
        scheduler["dashboard_address"] = plan.dashboard or f"{_LOOPBACK}:0"
        return {
            "path": sys.path,
            "workers": [self._worker(number, share) for number, share in enumerate(shares)],
            "template": self._worker(None, _dealt(plan.resources, plan.processes)[0]),
            "adaptive": plan.adaptive,
            "scheduler": scheduler,
            "environment": plan.env_vars,
            "directory": str(self._directory.path),
            "report": report,
            "config": {
                "temporary-directory": str(self._directory.path),
                "distributed.scheduler.allowed-failures": LIVES - 1,
                # So that stages may have child processes.
                "distributed.worker.daemon": False,
                # It wakes every worker a hundred times a second.
                "distributed.worker.profile.enabled": False,
                "distributed.scheduler.dashboard.bokeh-application.allow_websocket_origin": ["*"],
            },
        }

    def _worker(self, number: int | None, resources: dict[str, float]) -> dict[str, Any]:
        plan = self._plan
        memory = plan.memory if plan.memory is not None else "auto"
        resources = dict(resources)
        environment = dict(plan.env_vars)
        if plan.threads > 1:
            resources[CPU] = plan.threads
            if plan.memory is not None:
                resources[MEMORY] = plan.memory
        if plan.devices:
            device = plan.devices[number] if number is not None and number < len(plan.devices) else None
            environment["CUDA_VISIBLE_DEVICES"] = "" if device is None else device
            if device is not None:
                resources[GPU] = 1
        return {
            "nthreads": plan.threads,
            "memory_limit": memory,
            "resources": resources,
            "env": environment,
            "host": _LOOPBACK,
            "local_directory": str(self._directory.path),
            "dashboard": False,
            # All that Dask has are spans, which the scheduler here does not take.
            "extensions": {},
        }


def _dealt(resources: dict[str, float], processes: int) -> list[dict[str, float]]:
    """Returns each process's share: whole units go round, so that what is rare is spread."""
    shares: list[dict[str, float]] = [{} for _ in range(processes)]
    turn = 0
    for name, amount in resources.items():
        for _ in range(math.floor(amount)):
            share = shares[turn % processes]
            share[name] = share.get(name, 0.0) + 1.0
            turn += 1
        if rest := amount - math.floor(amount):
            share = shares[turn % processes]
            share[name] = share.get(name, 0.0) + rest
            turn += 1
    return shares

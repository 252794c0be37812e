"""Starts a cluster on this machine, in processes of its own, and ends it without a trace."""

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from flowtilla.errors import ExecutorClosed, ExecutorError
from flowtilla_executors.dask import head
from flowtilla_executors.dask.plan import Plan
from flowtilla_executors.failures import ending
from flowtilla_executors.local.directory import PrivateDirectory
from flowtilla_executors.loopback import is_loopback
from flowtilla_executors.outcome import LIVES

_log = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"

#: Seconds until it must have all its workers.
_START = 120.0

#: Characters of what the cluster's processes wrote that an error shows.
_TAIL = 2000


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
        #: Where the dashboard is, once it is; None without one.
        self.dashboard: str | None = None

    def start(self) -> str:
        """Starts it and returns its address; blocks for as long as that takes.

        Raises:
            ExecutorError: it ended before it had all its workers, or they did not come, or have too little memory.
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
            with selectors.DefaultSelector() as selector:
                selector.register(report, selectors.EVENT_READ)
                answer = report.read() if selector.select(_START) else None
        if not answer:
            raise self.unstarted(f"it was not ready after {_START:g}s" if answer is None else self._end())
        ready = json.loads(answer)
        if "refused" in ready:
            raise ExecutorError(
                f"the local Dask cluster did not start: {ready['refused']}: give each worker process more (`memory`), "
                "or have fewer (`cpus`)"
            )
        if self._plan.dashboard is not None:
            self._show(self._plan.dashboard.rpartition(":")[0], ready["dashboard_port"])
        return str(ready["address"])

    def unstarted(self, why: object) -> ExecutorError:
        """Returns the error of a cluster that did not start, with the last that it said."""
        said = self._log.read_text(errors="replace")[-_TAIL:] if self._plan.quiet else "see above"
        return ExecutorError(
            f"the local Dask cluster did not start: {why}. If memory is short, give each worker process more "
            f"(`memory`) or have fewer (`cpus`). It said: {said}"
        )

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
            head.remove_semaphores(self._directory.path)
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

    def _show(self, host: str, port: int) -> None:
        self.dashboard = f"http://{host or '0.0.0.0'}:{port}/status"
        if not is_loopback(host):
            _log.warning(
                "Dask's dashboard at %s asks for no password: whoever reaches it sees what runs, and the logs. Let it "
                "listen on `dashboard_host: 127.0.0.1`, and reach that through a tunnel",
                self.dashboard,
            )

    def _end(self) -> str:
        assert self._process is not None
        return ending(self._process.wait())

    def _orders(self, report: int) -> dict[str, Any]:
        plan = self._plan
        scheduler: dict[str, Any] = {"host": _LOOPBACK, "port": 0, "dashboard": plan.dashboard is not None}
        scheduler["dashboard_address"] = plan.dashboard or f"{_LOOPBACK}:0"
        return {
            "path": sys.path,
            "workers": [worker | self._common() for worker in plan.workers()],
            "least": plan.least,
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
            },
        }

    def _common(self) -> dict[str, Any]:
        return {
            "host": _LOOPBACK,
            "local_directory": str(self._directory.path),
            "dashboard": False,
            # All that Dask has are spans, which the scheduler here does not take.
            "extensions": {},
        }

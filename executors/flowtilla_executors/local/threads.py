"""Calls in threads of this process: no copy to another process, but nothing can stop a stage that does not want to."""

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

from flowtilla.cancellation import Cancellation
from flowtilla.logs import LogLine
from flowtilla_executors import capture, recorder
from flowtilla_executors.base import LogSink
from flowtilla_executors.failures import timed_out
from flowtilla_executors.invoke import invoke
from flowtilla_executors.local.directory import PrivateDirectory, bases
from flowtilla_executors.local.files import owned, store
from flowtilla_executors.local.handle import Ended, Handle
from flowtilla_executors.local.memory import ThreadMemory, lend
from flowtilla_executors.values import IMMUTABLE, Same, Snapshot


class Threads:
    """As many daemon threads as calls ran at once.

    A call that times out or is cancelled has its outcome at once; its thread runs on, and keeps its room, until the
    stage returns. `context().cancelled` tells the stage.

    Args:
        env_vars: set in this process while the executor runs.
        ended: told of every call whose thread is free again, from that thread.
    """

    def __init__(self, env_vars: dict[str, str], ended: Ended) -> None:
        self._env_vars = env_vars
        self._ended = ended

    def start(self, log_sink: LogSink) -> None:
        self._loop = asyncio.get_running_loop()
        self._log_sink = log_sink
        self._queue: SimpleQueue[Handle | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = self._busy = 0
        self._environment = {name: os.environ.get(name) for name in self._env_vars}
        os.environ.update(self._env_vars)
        self._private = [PrivateDirectory(base) for base in bases()]
        self._directories = [directory.path for directory in self._private]
        capture.install()
        lend(ThreadMemory())

    def run(self, handle: Handle) -> None:
        with self._lock:
            self._busy += 1
            grow = self._busy > self._threads
            self._threads += grow
        self._queue.put(handle)
        if grow:
            threading.Thread(target=self._work, name="flowtilla-stage", daemon=True).start()

    def stop(self, handle: Handle) -> None:
        """Asks the stage to stop, which it may not heed."""
        if handle.cancellation is not None:
            handle.cancellation.request()

    def flush_logs(self) -> None:
        """Hands on the lines that calls still running have written."""
        recorder.flush()

    def collect_logs(self) -> None:
        """Nothing to do: what a call that ended has not handed on is in its outcome."""

    async def close(self) -> None:
        # Stages that do not end may still write.
        self._log_sink = lambda lines: None
        lend(None)
        capture.uninstall()
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for _ in range(self._threads):
            self._queue.put(None)
        for directory in self._private:
            directory.close()

    def _work(self) -> None:
        while self._run_next():
            pass

    # A function of its own, so that an idle thread holds no reference to the last call and its value.
    def _run_next(self) -> bool:
        handle = self._queue.get()
        if handle is None:
            return False
        kept = outcome = None
        # Before it is asked whether the call is settled: whoever settles it asks for its end next.
        handle.cancellation = Cancellation()
        if not handle.settled:
            handle.started = time.time()
            if handle.call.timeout is not None:
                self._loop.call_soon_threadsafe(self._loop.call_later, handle.call.timeout, self._overdue, handle)
            keep = partial(self._keep, f"value-{handle.number}-")
            kept, outcome = invoke(handle.call, handle.parents, keep, self._emit, handle.cancellation)
            if handle.settled:
                self._emit(outcome.logs)  # its last words
        with self._lock:
            self._busy -= 1
        self._ended(handle, kept, outcome)
        return True

    def _keep(self, name: str, value: Any) -> Snapshot:
        if type(value) in IMMUTABLE:
            return Same(value)
        # A big array is copied once, into a file; whoever takes it maps that, and copies only the pages it changes.
        return owned(store(value, name, self._directories))

    def _emit(self, lines: Sequence[LogLine]) -> None:
        self._log_sink(lines)

    def _overdue(self, handle: Handle) -> None:
        if not handle.settled:
            recorder.flush()
            handle.settle(None, timed_out(handle.call, handle.started))
            self.stop(handle)

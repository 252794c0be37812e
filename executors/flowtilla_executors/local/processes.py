"""Calls in child processes: what one does to its process no other sees, and it can be killed."""

import asyncio
import contextlib
import logging
import pickle
import socket
import threading
import time
import weakref
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from typing import Any

from pebble import ProcessExpired, ProcessPool

from flowtilla_executors.base import LogSink
from flowtilla_executors.local import child
from flowtilla_executors.local.directory import PrivateDirectory, bases
from flowtilla_executors.local.failures import Ended, ending, failed, lost, timed_out
from flowtilla_executors.local.files import Mapped, discard, store
from flowtilla_executors.local.handle import Handle
from flowtilla_executors.local.spawn import ENDED_WITH_ZERO, Context
from flowtilla_executors.outcome import Failure, Outcome
from flowtilla_executors.values import Snapshot

_log = logging.getLogger(__name__)

#: Seconds between looks at whether the pool is still sound.
_WATCH = 0.5


class Processes:
    """A pool of child processes; one that is killed, or dies, is replaced.

    Args:
        count: how many.
        env_vars: set in the children.
        ended: told of every call that a child no longer runs, from any thread.
    """

    def __init__(self, count: int, env_vars: dict[str, str], ended: Ended) -> None:
        self._count = count
        self._env_vars = env_vars
        self._ended = ended

    def start(self, log_sink: LogSink) -> None:
        self._loop = asyncio.get_running_loop()
        self._log_sink = log_sink
        self._lock = threading.RLock()
        self._pool: ProcessPool | None = None
        self._waiting: list[Handle] = []
        self._running: dict[int, Handle] = {}
        self._futures: dict[int, Any] = {}
        self._closed = False
        self._private = [PrivateDirectory(base) for base in bases()]
        self._directories = [directory.path for directory in self._private]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self._directories[0] / child.LOGS))
        self._loop.add_reader(self._socket, self.collect_logs)
        self._watcher = self._loop.call_later(_WATCH, self._watch)
        self._build(None)

    def run(self, handle: Handle) -> None:
        with self._lock:
            if handle.settled:
                self._ended(handle, None, None)
            elif self._pool is None:
                self._waiting.append(handle)
            else:
                self._schedule(self._pool, handle)

    def stop(self, handle: Handle) -> None:
        """Kills the child that runs the call."""
        with self._lock:
            future = self._futures.get(handle.number)
        if future is not None:
            future.cancel()

    def flush_logs(self) -> None:
        """Hands on the lines that calls still running have sent."""
        self.collect_logs()

    def collect_logs(self) -> None:
        """Hands on the lines that children have sent; a child sends before it says that a call has ended."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._log_sink(pickle.loads(self._socket.recv(1024 * 1024)))

    async def close(self) -> None:
        self._watcher.cancel()
        with self._lock:
            self._closed = True
        await asyncio.to_thread(self._end)
        self._loop.remove_reader(self._socket)
        self.collect_logs()
        self._socket.close()
        for directory in self._private:
            directory.close()

    def _schedule(self, pool: ProcessPool, handle: Handle) -> None:
        handle.started = time.time()
        self._running[handle.number] = handle
        try:
            payload = store((handle.call, handle.parents), f"call-{handle.number}-", self._directories)
        except Exception as error:
            # Later, since ending a call at once begins another, which may end at once.
            outcome = failed(handle, Failure.of(error))
            self._loop.call_soon_threadsafe(self._finish, handle.number, None, outcome)
            return
        handle.payload = _owned(payload)
        try:
            task = (f"value-{handle.number}-", payload)
            future = pool.schedule(child.run, args=task, timeout=handle.call.timeout)
        except RuntimeError:  # the pool broke, and nobody has looked yet
            del self._running[handle.number]
            self._waiting.append(handle)
            self._rebuild(pool)
            return
        self._futures[handle.number] = future
        # By number, since the pool holds on to its last task, and a handle to its value.
        future.add_done_callback(partial(self._done, handle.number))

    def _done(self, number: int, future: Any) -> None:
        if future.cancelled():
            # The pool kills the child within a moment; until then it may still write its value.
            self._loop.call_soon_threadsafe(self._loop.call_later, 5.0, self._discard, number)
            self._finish(number, None, None)
        elif (error := future.exception()) is None:
            kept, outcome = future.result()
            self._finish(number, _owned(kept), outcome)
        elif (handle := self._running.get(number)) is not None:
            self._discard(number)
            self._finish(number, None, _outcome_of(handle, error))

    def _finish(self, number: int, kept: Snapshot | None, outcome: Outcome | None) -> None:
        with self._lock:
            handle = self._running.pop(number, None)
            self._futures.pop(number, None)
        if handle is not None:
            handle.payload = None
            self._ended(handle, kept, outcome)

    def _discard(self, number: int) -> None:
        discard(f"value-{number}-", self._directories)

    def _watch(self) -> None:
        if self._pool is not None and not self._pool.active:
            self._rebuild(self._pool)
        elif self._pool is None and not self._builder.is_alive():
            self._build(None)
        self._watcher = self._loop.call_later(_WATCH, self._watch)

    def _rebuild(self, broken: ProcessPool) -> None:
        """Replaces a pool that broke, for which the death of an idle child is enough."""
        with self._lock:
            if self._pool is not broken:
                return
            self._pool = None
            orphans = list(self._running.values())
        for handle in orphans:
            self._finish(handle.number, None, lost(handle, "the pool of processes broke"))
        self._build(broken)

    def _build(self, broken: ProcessPool | None) -> None:
        """Makes a pool in the background, so that the worker is up at once."""
        self._builder = threading.Thread(target=self._make_pool, args=(broken,), name="flowtilla-pool", daemon=True)
        self._builder.start()

    def _make_pool(self, broken: ProcessPool | None) -> None:
        if broken is not None:
            _end(broken)
        pool: Any = ProcessPool(
            max_workers=self._count,
            initializer=child.begin,
            initargs=(self._directories, self._env_vars),
            context=Context(),
        )
        try:
            sound = pool.active  # asking starts the processes
        except Exception:
            _log.exception("the Local executor cannot start its processes; it tries again")
            sound = False
        with self._lock:
            if not sound:
                pool.stop()
                return
            self._pool = pool
            waiting, self._waiting = self._waiting, []
            for handle in waiting:
                self.run(handle)

    def _end(self) -> None:
        self._builder.join()
        if self._pool is not None:
            _end(self._pool)


def _owned(kept: Snapshot | None) -> Snapshot | None:
    """Returns a copy of the snapshot; its file, if it has one, goes with the last reference to the copy."""
    if not isinstance(kept, Mapped):
        return kept
    owned = replace(kept)
    weakref.finalize(owned, owned.path.unlink, missing_ok=True).atexit = False
    return owned


def _end(pool: Any) -> None:
    pool.stop()
    pool.join()


def _outcome_of(handle: Handle, error: BaseException) -> Outcome:
    if isinstance(error, TimeoutError):
        return timed_out(handle)
    if isinstance(error, ProcessExpired):
        return lost(handle, ending(0 if error.exitcode == ENDED_WITH_ZERO else error.exitcode))
    return failed(handle, Failure.of(error, lost=isinstance(error, BrokenProcessPool)))

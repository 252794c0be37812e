"""Calls in child processes: what one does to its process no other sees, and it can be killed."""

import asyncio
import atexit
import contextlib
import logging
import pickle
import socket
import time
from collections import deque
from collections.abc import Coroutine

from flowtilla.cancellation import GRACE
from flowtilla_executors.base import LogSink
from flowtilla_executors.failures import ending, failed, lost, timed_out
from flowtilla_executors.local.child import LOGS, serve
from flowtilla_executors.local.directory import PrivateDirectory, bases
from flowtilla_executors.local.files import discard, owned, store
from flowtilla_executors.local.handle import Child, Ended, Handle
from flowtilla_executors.local.line import WORD
from flowtilla_executors.local.spawn import Context
from flowtilla_executors.outcome import Failure, Outcome
from flowtilla_executors.values import Snapshot

_log = logging.getLogger(__name__)

#: Seconds until another child is tried when one could not be started, or did not live to see a call.
_PAUSE = 1.0

#: More datagrams than a socket can hold: reading as many takes all that were there, and comes to an end.
_QUEUED = 1024


class Processes:
    """A crew of child processes, one call at a time each; one that is killed, or dies, is replaced.

    It lives in the event loop: a child's answer, and its end, wake the loop through the child's connection.

    Args:
        count: how many.
        env_vars: set in the children.
        ended: told of every call that no child runs any more.
    """

    def __init__(self, count: int, env_vars: dict[str, str], ended: Ended) -> None:
        self._count = count
        self._env_vars = env_vars
        self._ended = ended

    def start(self, log_sink: LogSink) -> None:
        self._loop = asyncio.get_running_loop()
        self._log_sink = log_sink
        self._children: set[Child] = set()
        self._idle: list[Child] = []
        self._waiting: deque[Handle] = deque()
        self._closed = False
        self._private = [PrivateDirectory(base) for base in bases()]
        self._directories = [directory.path for directory in self._private]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self._directories[0] / LOGS))
        self._loop.add_reader(self._socket, self.collect_logs)
        atexit.register(self._kill_all)
        # In the background, so that the worker is up at once.
        self._tasks = {self._loop.create_task(self._hire(self._count))}

    def run(self, handle: Handle) -> None:
        self._waiting.append(handle)
        self._dispatch()

    def stop(self, handle: Handle) -> None:
        """Ends a call: kills its child, at once or, if the call will notice, only when it does not end by itself."""
        # A thread may be adding one.
        child = next((each for each in list(self._children) if each.handle is handle), None)
        if child is not None and child.heeds:
            with contextlib.suppress(OSError):
                child.connection.send_bytes(WORD)
            self._loop.call_later(GRACE, self._kill, child, handle)
        elif child is not None:
            self._kill(child, handle)
        elif handle in self._waiting:
            self._waiting.remove(handle)
            self._end_soon(handle, None)

    def flush_logs(self) -> None:
        """Hands on the lines that calls still running have sent."""
        self.collect_logs()

    def collect_logs(self) -> None:
        """Hands on the lines that children have sent; a child sends before it says that a call has ended."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_QUEUED):
                self._log_sink(pickle.loads(self._socket.recv(1024 * 1024)))

    async def close(self) -> None:
        self._closed = True
        # Not cancelled, or a child that is just being started would be forgotten.
        await asyncio.gather(*self._tasks)
        for each in self._children:
            self._loop.remove_reader(each.connection)
        await asyncio.to_thread(self._kill_all)
        atexit.unregister(self._kill_all)
        for each in self._children:
            each.connection.close()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for directory in self._private:
            directory.close()

    def _dispatch(self) -> None:
        while self._waiting and self._idle:
            handle = self._waiting.popleft()
            if handle.settled:
                self._end_soon(handle, None)
                continue
            try:
                payload = store((handle.call, handle.parents), f"call-{handle.number}-", self._directories)
            except Exception as error:
                self._end_soon(handle, failed(Failure.of(error)))
                continue
            self._give(self._idle.pop(), handle, payload)

    def _end_soon(self, handle: Handle, outcome: Outcome | None) -> None:
        # Not at once, since the end of a call begins another, which may end at once.
        self._loop.call_soon(self._ended, handle, None, outcome)

    def _give(self, child: Child, handle: Handle, payload: Snapshot) -> None:
        child.handle, child.heeds, handle.payload, handle.started = handle, False, owned(payload), time.time()
        if handle.call.timeout is not None:
            self._loop.call_later(handle.call.timeout, self._overdue, child, handle)
        with contextlib.suppress(OSError):  # it has just died, and the loop is about to hear so
            child.connection.send_bytes(pickle.dumps((_value_name(handle), payload)))

    def _overdue(self, child: Child, handle: Handle) -> None:
        if child.handle is handle and not handle.settled:
            self.collect_logs()
            handle.settle(None, timed_out(handle.call, handle.started))
            self.stop(handle)

    def _heard(self, child: Child) -> None:
        """Takes what a child says, or notes that it is gone."""
        try:
            answer = pickle.loads(child.connection.recv_bytes())
        except (EOFError, OSError):
            self._retire(child)
            return
        if answer is None:
            child.heeds = True
            return
        kept, outcome = answer
        if child.handle is not None and child.handle.settled:
            self._log_sink(outcome.logs)  # its last words; what it started goes with the child
            self._retire(child)
            return
        handle, child.handle = child.handle, None
        self._idle.append(child)
        self._end(handle, owned(kept), outcome)
        self._dispatch()

    def _end(self, handle: Handle | None, kept: Snapshot | None, outcome: Outcome | None) -> None:
        if handle is not None:
            handle.payload = None
            self._ended(handle, kept, outcome)

    def _kill(self, child: Child, handle: Handle) -> None:
        if child.handle is handle:
            self._retire(child)

    def _retire(self, child: Child) -> None:
        # Not by what the connection says: something that left the child's session may hold its end of it.
        if not (child.retired or self._closed):
            child.retired = True
            self._loop.remove_reader(child.connection)
            self._start_task(self._replace(child))

    async def _replace(self, child: Child) -> None:
        if child in self._idle:
            self._idle.remove(child)
        child.process.end()  # what it started, and itself if it only closed its connection
        await asyncio.to_thread(child.process.join)
        child.connection.close()
        self._children.discard(child)
        how = ending(child.process.exitcode or 0)
        if (handle := child.handle) is not None:
            discard(_value_name(handle), self._directories)
            self._lose(handle, how)
        else:
            _log.warning("an idle process of the Local executor died: %s; another takes its place", how)
            await asyncio.sleep(_PAUSE)
        await self._hire(1)

    def _lose(self, handle: Handle, how: str) -> None:
        """Gives a call whose process died to another, unless it has had its share."""
        handle.lives -= 1
        if handle.lives and not handle.settled:
            _log.warning(
                "a process died as it ran stage %r (%s); the call is run again", handle.call.context.stage, how
            )
            self._waiting.appendleft(handle)
            self._dispatch()
        else:
            self._end(handle, None, lost(handle.call, how, handle.started))

    async def _hire(self, count: int) -> None:
        while count and not self._closed:
            try:
                child = await asyncio.to_thread(self._spawn)
            except Exception:
                _log.exception("the Local executor cannot start a process; it tries again")
                await asyncio.sleep(_PAUSE)
                continue
            count -= 1
            self._loop.add_reader(child.connection, self._heard, child)
            self._idle.append(child)
            self._dispatch()

    def _spawn(self) -> Child:
        context = Context()
        ours, theirs = context.Pipe()
        with theirs:
            process = context.Process(
                target=serve, args=(theirs, self._directories, self._env_vars), name="flowtilla-stage"
            )
            process.start()
        self._children.add(spawned := Child(process, ours))
        return spawned

    def _kill_all(self) -> None:
        for each in list(self._children):
            each.process.end()
        for each in list(self._children):
            each.process.join()

    def _start_task(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _value_name(handle: Handle) -> str:
    return f"value-{handle.number}-"

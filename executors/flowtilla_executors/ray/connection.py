"""One start of the Ray executor, on the worker's side: the way of a call to the driver process and back."""

import asyncio
import itertools
import logging
import pickle
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowtilla import errors
from flowtilla.errors import ClusterLost, ClusterUnreachable, ExecutorClosed, ExecutorError, ResourcesUnavailable
from flowtilla.logs import LogLine
from flowtilla_executors import remote
from flowtilla_executors import resources as amounts
from flowtilla_executors.base import ExecutorInfo, LogSink
from flowtilla_executors.call import Call
from flowtilla_executors.failures import cancelled, failed, lost, timed_out
from flowtilla_executors.local.directory import PrivateDirectory
from flowtilla_executors.outcome import Failure, Outcome
from flowtilla_executors.ray.handle import Handle
from flowtilla_executors.ray.link import Link
from flowtilla_executors.ray.options import Need, Nodes, Options

_log = logging.getLogger(__name__)

#: Seconds of silence, of a driver process that says something every second, after which it is stuck.
_SILENCE = 8

#: Bytes from which loading a value may hold up the event loop.
_BIG = 1024 * 1024

#: Characters of a folder's name that leave room for the paths of Ray's sockets, which may have 103.
_SHORT = 12


class Connection:
    """A driver process, the calls that it has, and what it says. Lives in the event loop.

    Args:
        options: what the driver process is told.
        autoscales: whether a call that no node could meet waits.
        log_sink: takes log lines.
    """

    def __init__(self, options: Options, autoscales: bool, log_sink: LogSink) -> None:
        loop = asyncio.get_running_loop()
        self._options = options
        self._autoscales = autoscales
        self._log_sink = log_sink
        self._nodes, self._detail, self._mailbox = Nodes([]), "", ""
        self._offers = amounts.Offers()
        self._numbers = itertools.count()
        self._unsettled: dict[int, Handle] = {}
        self._leaving: dict[int, asyncio.Future[None]] = {}
        self._fetching: dict[int, asyncio.Future[bytes]] = {}
        self._dropped: deque[int] = deque()
        self._fitting: set[Need] = set()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._gone: asyncio.Future[ClusterLost] = loop.create_future()
        self._private: PrivateDirectory | None = None
        self._link = Link(self._hear, self._ended)

    async def open(self) -> None:
        """Starts the driver process, and waits until it has joined the cluster.

        Raises:
            ExecutorError: it cannot, as `RayExecutor.start` has it.
        """
        if self._options.address is None:
            self._private = PrivateDirectory(_base())
            self._options = replace(self._options, folder=self._private.path)
        try:
            await self._link.open(self._options)
            async with asyncio.timeout(self._options.patience):
                await self._ready
        except TimeoutError:
            await self._abandon()
            raise ClusterUnreachable(
                f"{self._options.name} was not ready after {self._options.patience:g}s: see whether the machine is "
                "overloaded, or the cluster has room to start processes"
            ) from None
        except BaseException:
            await self._abandon()
            raise
        self._watch = asyncio.create_task(self._watch_silence())

    async def close(self) -> None:
        """Ends all calls and the driver process, and with it a cluster of its own."""
        self._watch.cancel()
        self._give_up_waiting(ExecutorClosed("the Ray executor was closed before the value was there"))
        for handle in list(self._unsettled.values()):
            self._settle(handle, cancelled(handle.call, "its executor was closed", handle.started))
        await self._abandon()

    async def _abandon(self) -> None:
        # Waited for, or what is being started would be left.
        await asyncio.shield(self._link.close(self._options.folder))
        if self._private is not None:
            self._private.close()

    def info(self) -> ExecutorInfo:
        """Returns what the cluster has now."""
        total = self._nodes.sum
        logical = {name: amount for name, amount in total.items() if name not in ("cpus", "memory")}
        return ExecutorInfo("ray", self._options.address, total.get("cpus", 0.0), logical, self._detail)

    async def lost(self) -> ClusterLost:
        """Waits until the cluster is gone, and returns how."""
        return await asyncio.shield(self._gone)

    def submit(self, call: Call, parents: Sequence[Handle]) -> Handle:
        """Has a call begin once its parents have ended and there is room for it."""
        for parent in parents:
            if parent.valueless:
                raise ExecutorError(f"the call of stage {parent.call.context.stage!r} failed: it has no value to take")
        need = self._need(call)
        handle = Handle(next(self._numbers), call, self._dropped)
        if self._gone.done():
            handle.settle(error=self._gone.result())
            return handle
        try:
            payload = remote.dumped((self._mailbox, handle.number, call))
        except Exception as error:
            handle.settle(failed(Failure.of(error)))
            return handle
        self._unsettled[handle.number] = handle
        timed = call.timeout is not None or call.context.deadline is not None
        self._send("submit", handle.number, payload, need, [parent.number for parent in parents], timed)
        if need not in self._fitting:
            asyncio.get_running_loop().call_later(amounts.MISSED, self._say_if_it_waits, handle)
        return handle

    async def fetch(self, handle: Handle) -> Any:
        """Returns the value of a call that succeeded."""
        if handle.outcome is None or handle.valueless:
            how = "failed" if handle.valueless else "has not ended"
            raise ExecutorError(f"the call of stage {handle.call.context.stage!r} {how}: it has no value to take")
        if self._gone.done():
            raise self._gone.result()
        number = next(self._numbers)
        self._fetching[number] = asyncio.get_running_loop().create_future()
        self._send("fetch", number, handle.number)
        try:
            kept = await self._fetching[number]
        finally:
            del self._fetching[number]
        return await asyncio.to_thread(_loaded, kept) if len(kept) > _BIG else _loaded(kept)

    async def cancel(self, handle: Handle) -> None:
        """Stops a call, by killing its process if it does not end by itself; its outcome is there at once.

        Returns once Ray says that its task has ended.
        """
        self._stop(handle, cancelled(handle.call, "the worker was told to stop it", handle.started))
        if handle.leaving is not None:
            ends: set[asyncio.Future[Any]] = {handle.leaving, self._gone}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)

    def _stop(self, handle: Handle, outcome: Outcome) -> None:
        if not handle.settled:
            self._settle(handle, outcome)
            handle.leaving = self._leaving[handle.number] = asyncio.get_running_loop().create_future()
            self._send("cancel", handle.number)

    def _need(self, call: Call) -> Need:
        resources = tuple(sorted(call.resources.items()))
        need = Need(1.0 if call.cpus is None else call.cpus, call.gpus or 0.0, call.memory or 0, resources)
        if need not in self._fitting:
            if need.gpus > 1 and need.gpus % 1:
                raise ResourcesUnavailable(
                    f"stage {call.context.stage!r} asks for gpus={need.gpus:g}, and Ray gives parts only of one: "
                    "ask for a whole number, or for less than one"
                )
            if self._autoscales or self._offers.meet(call.context.stage, need.amounts, "ray"):
                self._fitting.add(need)
        return need

    def _say_if_it_waits(self, handle: Handle) -> None:
        if not handle.settled and handle.started is None and (need := self._need(handle.call)) not in self._fitting:
            self._log_sink([amounts.waits(handle.call.context, need.amounts)])

    def _send(self, *message: Any) -> None:
        if self._dropped:
            self._link.send("drop", [self._dropped.popleft() for _ in range(len(self._dropped))])
        self._link.send(*message)

    def _settle(self, handle: Handle, outcome: Outcome) -> None:
        self._unsettled.pop(handle.number, None)
        handle.settle(outcome)

    async def _watch_silence(self) -> None:
        # Seconds are counted as this process lives them: a laptop that slept has not waited.
        while self._link.silence < _SILENCE:
            await asyncio.sleep(1)
            self._link.silence += 1
            if self._dropped:
                self._send("drop", [])
        self._lose(f"its driver process has said nothing for {_SILENCE} seconds")

    def _ended(self) -> None:
        """Takes note that the driver process is gone."""
        self._lose(f"its driver process ended: {self._link.describe_end()}")

    def _lose(self, how: str) -> None:
        if self._ready.done() and not self._gone.done():
            self._gone.set_result(ClusterLost(f"{self._options.name} is lost: {how}"))
            for handle in self._unsettled.values():
                handle.settle(error=self._gone.result())
            self._unsettled.clear()
            self._give_up_waiting(self._gone.result())
        elif not self._ready.done():
            # Ray ends a process that joins a node which is just going: another try may find it whole.
            kind = ExecutorError if self._options.address is None else ClusterUnreachable
            self._ready.set_exception(kind(f"{self._options.name} cannot be used: {how}"))

    def _give_up_waiting(self, error: ExecutorError) -> None:
        """Ends every wait for what only the driver process could say."""
        for value in self._fetching.values():
            if not value.done():
                value.set_exception(error)
        for number in list(self._leaving):
            self._hear_stopped(number)

    # What the driver process says.

    def _hear(self, message: tuple[Any, ...]) -> None:
        getattr(self, f"_hear_{message[0]}")(*message[1:])

    def _hear_beat(self) -> None:
        """It lives."""

    def _hear_ready(self, detail: str, mailbox: str, nodes: Nodes) -> None:
        self._detail, self._mailbox = detail, mailbox
        self._hear_nodes(nodes)
        if not self._ready.done():
            self._ready.set_result(None)

    def _hear_refused(self, kind: str, message: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(getattr(errors, kind)(message))

    def _hear_warning(self, message: str) -> None:
        _log.warning("%s", message)

    def _hear_nodes(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._offers.update(nodes.totals)
        self._fitting.clear()

    def _hear_gone(self, how: str) -> None:
        self._lose(how)

    def _hear_lines(self, content: bytes) -> None:
        lines: Sequence[LogLine] = pickle.loads(content)
        self._log_sink(lines)

    def _hear_began(self, number: int) -> None:
        handle = self._unsettled.get(number)
        if handle is not None and handle.call.timeout is not None:
            handle.started = time.time()
            if handle.timer is not None:
                handle.timer.cancel()
            handle.timer = asyncio.get_running_loop().call_later(handle.call.timeout, self._overdue, handle)

    def _overdue(self, handle: Handle) -> None:
        self._stop(handle, timed_out(handle.call, handle.started))

    def _hear_stopped(self, number: int) -> None:
        if (leaving := self._leaving.pop(number, None)) is not None and not leaving.done():
            leaving.set_result(None)

    def _hear_ended(self, number: int, content: bytes, seen: int) -> None:
        if (handle := self._ended_by_itself(number)) is not None:
            outcome: Outcome = pickle.loads(content)
            self._settle(handle, replace(outcome, logs=outcome.logs[seen:]) if seen else outcome)

    def _hear_early(self, number: int) -> None:
        if (handle := self._ended_by_itself(number)) is not None:
            self._settle(handle, Outcome(time.time(), time.time(), host="", pid=0, early=True))

    def _hear_died(self, number: int, how: str) -> None:
        if (handle := self._ended_by_itself(number)) is not None:
            self._settle(handle, lost(handle.call, how, handle.started))

    def _hear_failed(self, number: int, kind: str, message: str) -> None:
        if (handle := self._ended_by_itself(number)) is not None:
            where = handle.call.context
            error = getattr(errors, kind)(f"stage {where.stage!r} of run {where.run_id}: {message}")
            self._settle(handle, failed(Failure.of(error), handle.started))

    def _ended_by_itself(self, number: int) -> Handle | None:
        """Returns the call's handle, unless it was stopped before."""
        self._hear_stopped(number)
        return self._unsettled.get(number)

    def _hear_value(self, number: int, content: bytes | None, message: str) -> None:
        if (value := self._fetching.get(number)) is not None and not value.done():
            if content is None:
                value.set_exception(ExecutorError(message))
            else:
                value.set_result(content)


def _loaded(kept: bytes) -> Any:
    return pickle.loads(kept).value.load()


def _base() -> Path:
    """Returns where a local cluster writes: a folder with a short name."""
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) <= _SHORT else Path("/tmp")

"""The Ray executor, on the worker's side: the way of a call to its driver process and back."""

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
from flowtilla.errors import ClusterLost, ClusterUnreachable, ConfigurationError, ExecutorError, ResourcesUnavailable
from flowtilla.logs import LogLine
from flowtilla.units import Bytes
from flowtilla_executors import resources as amounts
from flowtilla_executors.base import Executor, ExecutorInfo, LogSink
from flowtilla_executors.call import Call
from flowtilla_executors.failures import cancelled, failed, lost, timed_out
from flowtilla_executors.gpus import devices, granted
from flowtilla_executors.local.directory import PrivateDirectory
from flowtilla_executors.outcome import Failure, Outcome
from flowtilla_executors.ray.handle import Handle
from flowtilla_executors.ray.link import Link
from flowtilla_executors.ray.options import Need, Nodes, Options

_log = logging.getLogger(__name__)

#: Seconds until a start is given up: Ray on a busy machine takes long, and what `pip` installs longer.
_STARTING, _CONNECTING, _INSTALLING = 120.0, 30.0, 600.0

#: Seconds of silence, of a driver process that says something every second, after which it is stuck.
_SILENCE = 8

#: Bytes from which loading a value may hold up the event loop.
_BIG = 1024 * 1024

#: Characters of a folder's name that leave room for the paths of Ray's sockets, which may have 103.
_SHORT = 12


class RayExecutor(Executor[Handle]):
    """Runs calls as tasks of a Ray cluster.

    Args:
        cluster_address: None starts a cluster on this machine; `auto`, `host:port` or `ray://host:port` connects.
        cpus: how many the local cluster has; all when None.
        gpus: how many GPUs the local cluster has; all when None.
        require_gpus: whether fewer GPUs than that are an error, or only worth a warning.
        memory: what the local cluster gives to calls that ask for memory, such as "8GB".
        object_store_memory: what it gives to values, in shared memory.
        resources: its logical resources by name.
        log_to_driver: whether what Ray's own processes print is printed here too.
        env_vars: environment variables of the stages.
        pip: packages to install for the stages.
        working_dir: a folder to ship to the stages, their current one.
        py_modules: packages to ship to the stages.
        dashboard: whether the local cluster has Ray's dashboard.
        dashboard_host: where it listens.
        dashboard_port: on which port; None takes a free one.
        auth_token_path: the file with the token of the cluster that it connects to; Ray's own places when None.
        tasks_per_worker: calls that one of Ray's processes runs until another takes its place; None is no limit.
        autoscales: whether the cluster grows on demand, so that a call that no node could meet waits.

    Raises:
        ConfigurationError: a local cluster's option is set, and an address too; or a number is not positive.
    """

    kind = "ray"
    submits_ahead = True

    def __init__(
        self,
        cluster_address: str | None = None,
        cpus: int | None = None,
        gpus: int | None = None,
        require_gpus: bool = True,
        memory: Bytes | None = None,
        object_store_memory: Bytes | None = None,
        resources: dict[str, float] | None = None,
        log_to_driver: bool = False,
        env_vars: dict[str, str | int | float] | None = None,
        pip: list[str] | None = None,
        working_dir: str | None = None,
        py_modules: list[str] | None = None,
        dashboard: bool = False,
        dashboard_host: str = "127.0.0.1",
        dashboard_port: int | None = None,
        auth_token_path: str | None = None,
        tasks_per_worker: int | None = None,
        autoscales: bool = False,
    ) -> None:
        local: dict[str, Any] = {
            "cpus": cpus,
            "gpus": gpus,
            "memory": memory,
            "object_store_memory": object_store_memory,
        }
        local |= {"resources": resources, "dashboard": dashboard or None, "dashboard_port": dashboard_port}
        if cluster_address and (wrong := [name for name, value in local.items() if value is not None]):
            raise ConfigurationError(
                f"the Ray executor connects to the cluster at {cluster_address!r}, and {', '.join(wrong)} can be set "
                "only for a cluster that it starts: remove either"
            )
        numbers: dict[str, float | None] = {"cpus": cpus, "tasks_per_worker": tasks_per_worker, **(resources or {})}
        if bad := {name: number for name, number in numbers.items() if number is not None and number <= 0}:
            raise ConfigurationError(f"the Ray executor cannot have {amounts.shown(bad)}: give positive numbers")
        self._gpus, self._require_gpus = gpus, require_gpus
        self._autoscales = autoscales
        shipped = {"pip": pip, "working_dir": working_dir, "py_modules": py_modules}
        self._options = Options(
            address=cluster_address,
            folder=None,
            cpus=cpus,
            gpus=[],
            memory=memory,
            object_store_memory=object_store_memory,
            resources=resources or {},
            env_vars={name: str(value) for name, value in (env_vars or {}).items()},
            runtime_env={name: value for name, value in shipped.items() if value},
            log_to_driver=log_to_driver,
            auth_token_path=auth_token_path,
            dashboard=(dashboard_host, dashboard_port) if dashboard else None,
            tasks_per_worker=tasks_per_worker,
        )
        self._nodes = Nodes([])
        self._detail = ""

    async def _start(self, log_sink: LogSink, modules: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        self._log_sink = log_sink
        self._numbers = itertools.count()
        self._unsettled: dict[int, Handle] = {}
        self._fetching: dict[int, asyncio.Future[bytes]] = {}
        self._dropped: deque[int] = deque()
        self._fitting: set[Need] = set()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._gone: asyncio.Future[ClusterLost] = loop.create_future()
        self._options = replace(self._options, modules=tuple(modules))
        self._private: PrivateDirectory | None = None
        if self._options.address is None:
            gpus = devices() if self._gpus is None else granted(self._gpus, self._require_gpus)
            self._private = PrivateDirectory(_base())
            self._options = replace(self._options, gpus=gpus, folder=self._private.path)
        self._link = Link(self._hear, self._ended)
        try:
            await self._link.open(self._options)
            async with asyncio.timeout(self._patience()):
                await self._ready
        except TimeoutError:
            await self._abandon()
            raise ClusterUnreachable(
                f"{self._options.name} was not ready after {self._patience():g}s: see whether the machine is "
                "overloaded, or the cluster has room to start processes"
            ) from None
        except BaseException:
            await self._abandon()
            raise
        self._watch = loop.create_task(self._watch_silence())

    async def _close(self) -> None:
        self._watch.cancel()
        for handle in list(self._unsettled.values()):
            self._settle(handle, cancelled(handle.call, "its executor was closed", handle.started))
        await self._abandon()

    async def _abandon(self) -> None:
        # Waited for, or what is being started would be left.
        await asyncio.shield(self._link.close(self._options.folder))
        if self._private is not None:
            self._private.close()

    def info(self) -> ExecutorInfo:
        total = self._nodes.sum
        logical = {name: amount for name, amount in total.items() if name not in ("cpus", "memory")}
        return ExecutorInfo(self.kind, self._options.address, total.get("cpus", 0.0), logical, self._detail)

    async def lost(self) -> ClusterLost:
        return await asyncio.shield(self._gone)

    def _submit(self, call: Call, parents: Sequence[Handle]) -> Handle:
        for parent in parents:
            if parent.valueless:
                raise ExecutorError(f"the call of stage {parent.call.context.stage!r} failed: it has no value to take")
        need = self._need(call)
        handle = Handle(next(self._numbers), call, self._dropped)
        if self._gone.done():
            handle.settle(error=self._gone.result())
            return handle
        self._unsettled[handle.number] = handle
        payload = pickle.dumps((self._mailbox, handle.number, call), protocol=5)
        self._send("submit", handle.number, payload, need, [parent.number for parent in parents])
        return handle

    async def outcome(self, handle: Handle) -> Outcome:
        return await handle.wait()

    async def fetch(self, handle: Handle) -> Any:
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
        if not handle.settled:
            self._settle(handle, cancelled(handle.call, "the worker was told to stop it", handle.started))
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
            if not self._autoscales:
                amounts.check(call.context.stage, need.amounts, self.kind, self._nodes.totals)
            self._fitting.add(need)
        return need

    def _send(self, *message: Any) -> None:
        if self._dropped:
            self._link.send("drop", [self._dropped.popleft() for _ in range(len(self._dropped))])
        self._link.send(*message)

    def _settle(self, handle: Handle, outcome: Outcome) -> None:
        self._unsettled.pop(handle.number, None)
        handle.settle(outcome)

    def _patience(self) -> float:
        if "pip" in self._options.runtime_env:
            return _INSTALLING
        return _STARTING if self._options.address is None else _CONNECTING

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
            for value in self._fetching.values():
                value.set_exception(self._gone.result())
        elif not self._ready.done():
            self._ready.set_exception(ExecutorError(f"{self._options.name} cannot be used: {how}"))

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
        if not handle.settled:
            self._settle(handle, timed_out(handle.call, handle.started))
            self._send("cancel", handle.number)

    def _hear_ended(self, number: int, content: bytes, seen: int) -> None:
        if (handle := self._unsettled.get(number)) is not None:
            outcome: Outcome = pickle.loads(content)
            self._settle(handle, replace(outcome, logs=outcome.logs[seen:]) if seen else outcome)

    def _hear_early(self, number: int) -> None:
        if (handle := self._unsettled.get(number)) is not None:
            self._settle(handle, Outcome(time.time(), time.time(), host="", pid=0, early=True))

    def _hear_died(self, number: int, how: str) -> None:
        if (handle := self._unsettled.get(number)) is not None:
            self._settle(handle, lost(handle.call, how, handle.started))

    def _hear_failed(self, number: int, kind: str, message: str) -> None:
        if (handle := self._unsettled.get(number)) is not None:
            self._settle(handle, failed(Failure.of(getattr(errors, kind)(message)), handle.started))

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

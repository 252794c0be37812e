"""The Local executor: what it has, who waits for it, and the way of a call through it."""

import asyncio
import contextlib
import itertools
import logging
import math
import os
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

from flowtilla.errors import ConfigurationError, ExecutorError
from flowtilla_executors.base import Executor, ExecutorInfo, LogSink
from flowtilla_executors.call import Call
from flowtilla_executors.failures import cancelled
from flowtilla_executors.local.handle import Handle, Need
from flowtilla_executors.local.processes import Processes
from flowtilla_executors.local.room import Room
from flowtilla_executors.local.threads import Threads
from flowtilla_executors.outcome import Outcome
from flowtilla_executors.resources import check, shown
from flowtilla_executors.values import Snapshot

_log = logging.getLogger(__name__)

#: Bytes from which copying a value may hold up the event loop.
_BIG = 1024 * 1024


class LocalExecutor(Executor[Handle]):
    """Runs calls on this machine.

    Args:
        cpus: how many calls of one cpu run at once; all that this process may use when None.
        mode: `processes`, where a stage can be killed and crashes alone, or `threads`, which is faster for tiny stages.
        resources: logical resources by name.
        env_vars: environment variables of the stages.

    Raises:
        ConfigurationError: `mode` is neither, or a number is not positive.
    """

    kind = "local"
    prioritizes = True

    def __init__(
        self,
        cpus: float | None = None,
        mode: Literal["processes", "threads"] = "processes",
        resources: dict[str, float] | None = None,
        env_vars: dict[str, str | int | float] | None = None,
    ) -> None:
        self._total = {**(resources or {}), "cpus": float(_cpus() if cpus is None else cpus)}
        self._mode = mode
        self.shares_interpreter = mode == "threads"
        self._env_vars = {name: str(value) for name, value in (env_vars or {}).items()}
        if mode not in ("processes", "threads"):
            raise ConfigurationError(f"the local executor has no mode {mode!r}: use 'processes' or 'threads'")
        if self._total["cpus"] <= 0 or min(self._total.values()) < 0:
            raise ConfigurationError(f"the local executor cannot have {shown(self._total)}: give positive numbers")

    async def _start(self, log_sink: LogSink, modules: Sequence[str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._room = Room(self._total)
        self._unsettled: set[Handle] = set()
        self._warned: set[tuple[str, str]] = set()
        # Filled by any thread and emptied by the loop, which is woken once for many.
        self._news: deque[tuple[Handle, Snapshot | None, Outcome | None]] = deque()
        self._waking = False
        self._crew = self._make_crew()
        self._crew.start(log_sink)

    async def _close(self) -> None:
        self._room.close()
        self._crew.flush_logs()
        for handle in list(self._unsettled):
            handle.settle(None, cancelled(handle.call, "its executor was closed", handle.started))
            if handle.admitted:
                self._crew.stop(handle)
        await self._crew.close()

    def info(self) -> ExecutorInfo:
        logical = {name: amount for name, amount in self._total.items() if name != "cpus"}
        detail = f"{self._total['cpus']:g} cpus of this machine, stages in {self._mode}"
        return ExecutorInfo(self.kind, None, self._total["cpus"], logical, detail)

    def _submit(self, call: Call, parents: Sequence[Handle]) -> Handle:
        handle = Handle(next(self._numbers), call, [_value(parent) for parent in parents], self._need(call))
        self._unsettled.add(handle)
        self._run(self._room.enter(handle))
        return handle

    async def outcome(self, handle: Handle) -> Outcome:
        return await handle.wait()

    async def fetch(self, handle: Handle) -> Any:
        value = _value(handle)
        return await asyncio.to_thread(value.load) if value.size > _BIG else value.load()

    async def cancel(self, handle: Handle) -> None:
        if not handle.settled:
            self._crew.flush_logs()
            handle.settle(None, cancelled(handle.call, "the worker was told to stop it", handle.started))
            self._unsettled.discard(handle)
            if handle.admitted:
                self._crew.stop(handle)
            else:
                handle.leave()
                self._run(self._room.admit())
        await handle.gone()

    def _make_crew(self) -> Processes | Threads:
        if self._mode == "threads":
            return Threads(self._env_vars, self._ended)
        return Processes(math.ceil(self._total["cpus"]), self._env_vars, self._ended)

    def _need(self, call: Call) -> Need:
        need = {**call.resources, "cpus": 1.0 if call.cpus is None else call.cpus}
        check(call.context.stage, need, self.kind, [self._total])
        if call.gpus or call.memory:
            self._warn_once(call)
        return tuple(sorted((name, amount) for name, amount in need.items() if amount))

    def _warn_once(self, call: Call) -> None:
        stage = (call.context.workflow, call.context.stage)
        if stage not in self._warned:
            self._warned.add(stage)
            _log.warning("stage %r asks for gpus or memory, which the local executor does not count: ignored", stage[1])

    def _run(self, admitted: list[Handle]) -> None:
        for handle in admitted:
            self._crew.run(handle)

    def _ended(self, handle: Handle, kept: Snapshot | None, outcome: Outcome | None) -> None:
        """Takes note, from any thread, that a call gives its room back."""
        self._news.append((handle, kept, outcome))
        if not self._waking:
            self._waking = True
            with contextlib.suppress(RuntimeError):  # a thread that outlived the loop
                self._loop.call_soon_threadsafe(self._settle)
        self._run(self._room.leave(handle))

    def _settle(self) -> None:
        # First, or what is added while this runs would wake nobody.
        self._waking = False
        self._crew.collect_logs()
        while self._news:
            handle, kept, outcome = self._news.popleft()
            self._unsettled.discard(handle)
            if outcome is not None:
                handle.settle(kept, outcome)
            handle.leave()


def _value(handle: Handle) -> Snapshot:
    if handle.kept is None:
        how = "failed" if handle.settled else "has not ended"
        raise ExecutorError(f"the call of stage {handle.call.context.stage!r} {how}: it has no value to take")
    return handle.kept


def _cpus() -> int:
    """Returns how many cpus this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

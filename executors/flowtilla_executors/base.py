"""The seam: what every compute back end offers the engine, and no more."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeVar

from flowtilla.errors import ClusterLost, ExecutorClosed
from flowtilla.logs import LogLine
from flowtilla_executors.call import Call
from flowtilla_executors.outcome import Outcome

#: The executor's own reference to the value of a call. While it lives the value stays in the cluster; when the last
#: reference to it goes, the executor frees the value.
Handle = TypeVar("Handle")

#: Takes lines as stages write them; may be called from any thread.
LogSink = Callable[[Sequence[LogLine]], None]


@dataclass(frozen=True, slots=True)
class ExecutorInfo:
    """What an executor runs on.

    Args:
        kind: `local`, `ray`, `dask` or the user's own.
        address: where the cluster is; None when it lives and dies with this process.
        cpus: how many calls of one cpu can run at once.
        resources: logical resources by name.
        detail: one sentence for people.
    """

    kind: str
    address: str | None
    cpus: float
    resources: dict[str, float] = field(default_factory=dict)
    detail: str = ""


class Executor(ABC, Generic[Handle]):
    """A compute back end.

    The constructor takes settings and does no I/O. `start` starts or connects, `close` closes only what `start` opened.
    One executor serves all runs of a worker process; the engine calls it from one event loop.

    A user's own executor subclasses this and is named in the configuration by its dotted path.
    """

    #: What `context().executor` says.
    kind: ClassVar[str]

    #: Whether `submit` takes handles of calls that have not ended, and runs a call after those it refers to.
    submits_ahead: ClassVar[bool] = False

    #: Whether of the calls that wait for room those of the highest priority begin first.
    prioritizes: ClassVar[bool] = False

    #: Whether stages run in the process that submits them, where one that holds the GIL stops everything else.
    shares_interpreter: bool = False

    _running = False

    async def start(self, log_sink: LogSink, modules: Sequence[str] = ()) -> None:
        """Starts a cluster or connects to one, and makes sure that it can run what this process will send it.

        Args:
            log_sink: takes log lines while calls run; what it has not been given comes with the outcome.
            modules: imported once where stages run.

        Raises:
            ExecutorError: it cannot; the message says why and what to do.
            ClusterUnreachable: the cluster does not answer; a later try may succeed.
            ClusterMismatch: the cluster has other versions than this process, or lacks a module.
        """
        await self._start(log_sink, modules)
        self._running = True

    async def close(self) -> None:
        """Ends running calls and closes what `start` opened; closing twice is harmless."""
        if self._running:
            self._running = False
            await self._close()

    @property
    def running(self) -> bool:
        """Whether it has been started, and not closed since."""
        return self._running

    async def __aenter__(self) -> Self:
        await self.start(lambda lines: None)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def submit(self, call: Call, parents: Sequence[Handle] = ()) -> Handle:
        """Begins a call as soon as there is room for it, and returns at once.

        Args:
            call: what to run.
            parents: handles of calls of this executor, ended unless it `submits_ahead`; the call's arguments refer to
                them by position.

        Raises:
            ExecutorClosed: the executor is not running.
            ExecutorError: a parent has no value, since it failed.
            ResourcesUnavailable: no node could ever meet what the call needs.
        """
        if not self._running:
            raise ExecutorClosed(f"the {self.kind} executor is not running: enter it, or await start(), first")
        return self._submit(call, parents)

    @abstractmethod
    async def outcome(self, handle: Handle) -> Outcome:
        """Waits until a call ends, however it ends, and returns how; never raises for what the call did.

        Raises:
            ClusterLost: the cluster is gone, and the call with it.
        """

    @abstractmethod
    async def fetch(self, handle: Handle) -> Any:
        """Returns the value of a call that succeeded, copied into this process.

        Raises:
            ExecutorError: the call failed, or has not ended.
            ClusterLost: the cluster is gone, and the value with it.
        """

    @abstractmethod
    async def cancel(self, handle: Handle) -> None:
        """Stops a call, running or not, and returns once it is known that nothing of it runs any more.

        Its outcome is there at once: a failure of class `asyncio.CancelledError`, unless it had one before. A call that
        took too long is stopped in any case; cancelling it waits for its end in the same way. The call's stage is asked
        first: if it heeds that, by `context().cancelled` or `on_cancel`, it has `GRACE` before force is used.
        """

    @abstractmethod
    def info(self) -> ExecutorInfo:
        """Returns what the executor runs on; before its start, what is known of it."""

    async def lost(self) -> ClusterLost:
        """Waits until the cluster is gone, and returns an error that says how; for ever where there is none.

        After that the executor can only be closed, and started again.
        """
        never: asyncio.Future[ClusterLost] = asyncio.get_running_loop().create_future()
        return await never

    # What a back end implements behind `start`, `close` and `submit`.

    @abstractmethod
    async def _start(self, log_sink: LogSink, modules: Sequence[str]) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...

    @abstractmethod
    def _submit(self, call: Call, parents: Sequence[Handle]) -> Handle: ...

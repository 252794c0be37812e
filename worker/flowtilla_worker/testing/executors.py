"""Executors for tests: one that many runs share, since starting a cluster takes seconds."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from flowtilla.errors import ClusterLost
from flowtilla.logs import LogLine
from flowtilla.settings import ExecutorSettings
from flowtilla_executors import Call, Executor, ExecutorInfo, LogSink, Outcome
from flowtilla_executors.registry import create
from flowtilla_worker.testing.loop import on_loop

#: A short name, a mapping as in the configuration file, or an executor that `started_executor` gave.
ExecutorLike = str | Mapping[str, Any] | Executor[Any]


class SharedExecutor(Executor[Any]):
    """An executor that outlives the workers that use it: their `start` and `close` only route its log lines.

    One whose cluster is gone is started again by the next `start`.

    Args:
        executor: the one that does the work.
    """

    def __init__(self, executor: Executor[Any]) -> None:
        # It is whatever it shares.
        self.kind = executor.kind  # type: ignore[misc]
        self.submits_ahead = executor.submits_ahead  # type: ignore[misc]
        self.prioritizes = executor.prioritizes  # type: ignore[misc]
        self._executor = executor
        self._sink: LogSink | None = None
        self._gone = False

    async def open(self) -> None:
        """Starts the executor that does the work."""
        await self._executor.start(self._route)

    async def shut(self) -> None:
        """Closes it."""
        await self._executor.close()

    async def outcome(self, handle: Any) -> Outcome:
        with self._noticing():
            return await self._executor.outcome(handle)

    async def fetch(self, handle: Any) -> Any:
        with self._noticing():
            return await self._executor.fetch(handle)

    async def cancel(self, handle: Any) -> None:
        await self._executor.cancel(handle)

    def info(self) -> ExecutorInfo:
        return self._executor.info()

    async def lost(self) -> ClusterLost:
        error = await self._executor.lost()
        self._gone = True
        return error

    async def _start(self, log_sink: LogSink, modules: Sequence[str]) -> None:
        if self._gone:
            await self._executor.start(self._route, modules)
            self._gone = False
        self._sink = log_sink

    async def _close(self) -> None:
        if self._gone:
            await self._executor.close()
        self._sink = None

    def _submit(self, call: Call, parents: Sequence[Any]) -> Any:
        return self._executor.submit(call, parents)

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """Notes that a call found the cluster gone: nobody may ask `lost` then."""
        try:
            yield
        except ClusterLost:
            self._gone = True
            raise

    def _route(self, lines: Sequence[LogLine]) -> None:
        if self._sink is not None:
            self._sink(lines)


@contextmanager
def started_executor(executor: str | Mapping[str, Any] = "local") -> Iterator[Executor[Any]]:
    """Starts an executor that many calls of `run_workflow` can share, in a session's fixture for example.

    Args:
        executor: a short name, or a mapping as in the configuration file.
    """
    shared = SharedExecutor(made(executor))
    on_loop(shared.open())
    try:
        yield shared
    finally:
        on_loop(shared.shut())


def made(executor: ExecutorLike) -> Executor[Any]:
    """Returns the executor that is meant."""
    if isinstance(executor, Executor):
        return executor
    settings = {"target": executor} if isinstance(executor, str) else dict(executor)
    return create(ExecutorSettings.model_validate(settings))

"""The same verbs for asyncio services."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flowtilla import orders, protocol
from flowtilla.client import with_url
from flowtilla.connection import connect_async
from flowtilla.enqueue import enqueue, enqueue_many
from flowtilla.logs import LogLine
from flowtilla.names import whole_run_id
from flowtilla.record import RunRecord
from flowtilla.run import artifacts_of
from flowtilla.settings import Settings
from flowtilla.states import RunState
from flowtilla.steps import adrive
from flowtilla.storage import Artifact
from flowtilla.submission import prepare
from flowtilla.workers import WorkerRecord, list_workers
from flowtilla.workflow import Workflow


class AsyncRun:
    """One run; see `Run`. What is a property there is awaited here: `(await run.record()).state`.

    Args:
        run_id: the run's id.
        redis: an asyncio connection.
        settings: where results, logs and artifacts are.
    """

    def __init__(self, run_id: str, redis: Any, settings: Settings) -> None:
        self.id = run_id
        self._redis = redis
        self._settings = settings

    def __repr__(self) -> str:
        return f"<AsyncRun {self.id}>"

    async def record(self) -> RunRecord:
        """Returns everything Redis knows of the run at this moment: state, stages, progress, …"""
        return await adrive(protocol.fetch(self.id), self._redis)

    async def artifacts(self) -> Mapping[str, Artifact]:
        """Returns what the run's stages stored and committed, by name."""
        return artifacts_of(await self.record(), self._settings)

    async def wait(self, timeout: float | None = None) -> RunState:
        """Waits until the run has ended, however it ended; see `Run.wait`."""
        return (await adrive(protocol.wait(self.id, timeout), self._redis)).state

    async def result(self, timeout: float | None = None) -> Any:
        """Waits until the run has ended and returns its result; see `Run.result`."""
        return await adrive(protocol.result(self.id, timeout, self._settings), self._redis)

    async def logs(self, follow: bool = False) -> AsyncIterator[LogLine]:
        """Yields the lines that the run's stages logged and printed; see `Run.logs`."""
        position: str | None = ""
        while position is not None:
            lines, position = await adrive(protocol.log_lines(self.id, position, follow, self._settings), self._redis)
            for line in lines:
                yield line

    async def cancel(self) -> None:
        """Cancels the run; see `Run.cancel`."""
        await adrive(protocol.cancel(self.id, self._settings), self._redis)

    async def retry(self, at_front: bool = False) -> None:
        """Queues the run again; see `Run.retry`."""
        await adrive(protocol.retry(self.id, at_front), self._redis)


class AsyncClient:
    """Submits workflow runs and reads what became of them; see `Client`.

    Args:
        url: the Redis; as the configuration's `redis` says when None.
        settings: the whole configuration; read from the file and the environment when None.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        self.settings = with_url(settings, url)
        self._redis = connect_async(self.settings.redis)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections to Redis."""
        await self._redis.aclose()

    async def submit(
        self,
        workflow: str | Path | Mapping[str, Any] | Workflow,
        input: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncRun:
        """Validates a workflow and enqueues one run of it; takes the options of `Client.submit`."""
        submission = prepare(self.settings, workflow, input, **options)
        await adrive(enqueue(submission), self._redis)
        return self._run(submission.run_id)

    async def submit_many(self, runs: Iterable[Mapping[str, Any]]) -> list[AsyncRun]:
        """Enqueues many runs in one round trip; see `Client.submit_many`."""
        submissions = [prepare(self.settings, **run) for run in runs]
        await adrive(enqueue_many(submissions), self._redis)
        return [self._run(submission.run_id) for submission in submissions]

    async def get(self, run_id: str) -> AsyncRun:
        """Returns a run by its id; see `Client.get`."""
        run_id = whole_run_id(run_id, self.settings.services.compute.default_namespace)
        await adrive(protocol.fetch(run_id), self._redis)
        return self._run(run_id)

    async def runs(
        self, namespace: str | None = None, state: RunState | str | None = None, limit: int = 100
    ) -> list[AsyncRun]:
        """Returns the newest runs, newest first; see `Client.runs`."""
        return [self._run(record.id) for record in await self.records(namespace, state, limit)]

    async def records(
        self, namespace: str | None = None, state: RunState | str | None = None, limit: int = 100
    ) -> list[RunRecord]:
        """Returns what Redis knows of the newest runs; see `Client.records`."""
        wanted = None if state is None else RunState(state)
        return await adrive(protocol.list_runs(namespace, wanted, limit), self._redis)

    async def workers(self) -> list[WorkerRecord]:
        """Returns the live workers of the fleet; see `Client.workers`."""
        return await adrive(list_workers(), self._redis)

    async def drain(self, *workers: str, queues: Collection[str] = (), all: bool = False) -> list[WorkerRecord]:
        """Tells workers to take no more runs, and to end when they have none left; see `Client.drain`."""
        return await adrive(orders.drain(orders.Whom(workers, queues, all)), self._redis)

    async def suspend(self, *workers: str, queues: Collection[str] = (), all: bool = False) -> list[WorkerRecord]:
        """Lets workers take no runs, or nobody any from some queues; see `Client.suspend`."""
        return await adrive(orders.suspend(orders.Whom(workers, queues, all)), self._redis)

    async def resume(self, *workers: str, queues: Collection[str] = (), all: bool = False) -> list[WorkerRecord]:
        """Takes back what `suspend` told, or `drain`; see `Client.resume`."""
        return await adrive(orders.resume(orders.Whom(workers, queues, all)), self._redis)

    def _run(self, run_id: str) -> AsyncRun:
        return AsyncRun(run_id, self._redis, self.settings)

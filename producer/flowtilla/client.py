"""The client: what a service uses to submit runs and to read what became of them."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from pydantic import SecretStr

from flowtilla import config as configuration
from flowtilla import protocol
from flowtilla.record import RunRecord
from flowtilla.run import Run
from flowtilla.settings import Settings
from flowtilla.states import RunState
from flowtilla.steps import drive
from flowtilla.submission import Submission, enqueue, enqueue_many, prepare
from flowtilla.workers import WorkerRecord, list_workers
from flowtilla.workflow import Workflow


class Client:
    """Submits workflow runs and reads what became of them.

    Thread-safe; connects on first use. Also a context manager.

    Args:
        url: the Redis, such as `redis://localhost:6379/0`; from the configuration when None.
        settings: the whole configuration; read from the file and the environment when None.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        self.settings = with_url(settings, url)
        self._redis: redis.Redis = redis.Redis.from_url(self.settings.redis.url.get_secret_value())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections to Redis."""
        self._redis.close()

    def submit(
        self,
        workflow: str | Path | Mapping[str, Any] | Workflow,
        input: Mapping[str, Any] | None = None,
        *,
        namespace: str | None = None,
        queue: str = "default",
        run_id: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | str | None = None,
        retention: float | str | None = None,
        at_front: bool = False,
        at: datetime | None = None,
        delay: float | str | timedelta | None = None,
        tags: Iterable[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> Run:
        """Validates a workflow and enqueues one run of it.

        Args:
            workflow: a YAML or JSON file, a mapping of the same shape, or a `Workflow`.
            input: what root stages get as keyword arguments; plain data.
            namespace: where its artifacts and objects live; the configuration's default when None.
            queue: the queue to push it onto.
            run_id: an id of your own; when a run has it already, that run is returned and nothing is enqueued.
            idempotency_key: any text; the second submit with an equal key in a namespace returns the first run.
            timeout: seconds, or "90s", that the whole run may take.
            retention: seconds, or "7d", that the run is kept after its end.
            at_front: before what waits in the queue.
            at, delay: when to queue it, at the earliest.
            tags: free marks, shown with the run.
            config: what its stages read in `context().config`; plain data.

        Returns:
            The run.

        Raises:
            InvalidWorkflow: the workflow breaks a rule; nothing was enqueued.
            MessageError: the input is too large or no plain data; nothing was enqueued.
            QueueUnavailable: Redis cannot be reached.
        """
        arguments = {name: value for name, value in locals().items() if name not in ("self", "workflow", "input")}
        submission = prepare(self.settings, workflow, input, **arguments)
        drive(enqueue(submission), self._redis)
        return self._run(submission.run_id)

    def submit_many(self, runs: Iterable[Mapping[str, Any]]) -> list[Run]:
        """Enqueues many runs in one round trip.

        Args:
            runs: mappings of the arguments of `submit`, such as `{"workflow": flow, "input": {"n": 5}}`. All are
                validated before the first is enqueued.

        Returns:
            The runs, in the same order.
        """
        submissions: list[Submission] = [prepare(self.settings, **run) for run in runs]
        drive(enqueue_many(submissions), self._redis)
        return [self._run(submission.run_id) for submission in submissions]

    def get(self, run_id: str) -> Run:
        """Returns a run by its id.

        Raises:
            RunNotFound: there is no such run.
        """
        drive(protocol.fetch(run_id), self._redis)
        return self._run(run_id)

    def runs(self, namespace: str | None = None, state: RunState | str | None = None, limit: int = 100) -> list[Run]:
        """Returns the newest runs, newest first.

        Args:
            namespace: only of this one.
            state: only in this state.
            limit: at most so many.
        """
        return [self._run(record.id) for record in self.records(namespace, state, limit)]

    def records(
        self, namespace: str | None = None, state: RunState | str | None = None, limit: int = 100
    ) -> list[RunRecord]:
        """Returns what Redis knows of the newest runs, in a few round trips; the arguments are those of `runs`."""
        wanted = None if state is None else RunState(state)
        return drive(protocol.list_runs(namespace, wanted, limit), self._redis)

    def workers(self) -> list[WorkerRecord]:
        """Returns the live workers of the fleet, by name: what each has in hand, and whether its executor is ready."""
        return drive(list_workers(), self._redis)

    def _run(self, run_id: str) -> Run:
        return Run(run_id, self._redis, self.settings)


def with_url(settings: Settings | None, url: str | None) -> Settings:
    """Returns the settings, read from file and environment when None, with another Redis when a URL is given."""
    settings = configuration.load() if settings is None else settings
    if url is None:
        return settings
    return settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": SecretStr(url)})})

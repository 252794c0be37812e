"""The client: what a service uses to submit runs and to read what became of them."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import SecretStr, ValidationError

from flowtilla import config as configuration
from flowtilla import orders, protocol
from flowtilla.connection import connect
from flowtilla.enqueue import enqueue, enqueue_many
from flowtilla.errors import ConfigurationError
from flowtilla.names import whole_run_id
from flowtilla.problems import describe
from flowtilla.record import RunRecord
from flowtilla.redis_settings import RedisSettings
from flowtilla.run import Run
from flowtilla.settings import Settings
from flowtilla.states import RunState
from flowtilla.steps import drive
from flowtilla.submission import Submission, prepare
from flowtilla.workers import WorkerRecord, list_workers
from flowtilla.workflow import Workflow


class Client:
    """Submits workflow runs and reads what became of them.

    Thread-safe; connects on first use. Also a context manager.

    Args:
        url: the Redis, such as `redis://localhost:6379/0`; as the configuration's `redis` says when None.
        settings: the whole configuration; read from the file and the environment when None.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        self.settings = with_url(settings, url)
        self._redis = connect(self.settings.redis)

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
        concurrency: Mapping[str, int] | None = None,
    ) -> Run:
        """Validates a workflow and enqueues one run of it.

        Args:
            workflow: a YAML or JSON file, a mapping of the same shape, or a `Workflow`.
            input: what root stages get as keyword arguments; plain data.
            namespace: where its artifacts and objects live; the configuration's default when None.
            queue: the queue to push it onto.
            run_id: an id of your own, unique in its namespace, which is put in front of it: `namespace--run_id`. When a
                run has it already, that run is returned and nothing is enqueued.
            idempotency_key: any text; the second submit with an equal key in a namespace returns the first run.
            timeout: seconds, or "90s", that the whole run may take from when it first begins, over all its attempts.
            retention: seconds, or "7d", that the run is kept after its end.
            at_front: before what waits of its namespace in the queue.
            at, delay: when to queue it, at the earliest.
            tags: free marks, shown with the run.
            config: what its stages read in `context().config`; plain data.
            concurrency: how many runs that share a key may be in workers' hands at once, by key, in the whole fleet:
                `{"customer-42": 1}`. Those above it wait, the longest first.

        Returns:
            The run.

        Raises:
            InvalidWorkflow: the workflow breaks a rule; nothing was enqueued.
            MessageError: the input is too large or no plain data; nothing was enqueued.
            QueueFull: as many runs wait in the queue, or of the namespace in it, as may; nothing was enqueued.
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

        Raises:
            QueueFull: not all could be queued; the error names those that were.
        """
        submissions: list[Submission] = [prepare(self.settings, **run) for run in runs]
        drive(enqueue_many(submissions), self._redis)
        return [self._run(submission.run_id) for submission in submissions]

    def get(self, run_id: str) -> Run:
        """Returns a run by its id; one without `--` is of a run in the configuration's default namespace.

        Raises:
            RunNotFound: there is no such run.
        """
        run_id = whole_run_id(run_id, self.settings.services.compute.default_namespace)
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

    def drain(self, *workers: str, queues: Collection[str] = (), all: bool = False) -> list[WorkerRecord]:
        """Tells workers to take no more runs, and to end when they have none left, however long that takes.

        That is kept in Redis until it is done. A supervised worker is not started again.

        Args:
            workers: live workers, by name.
            queues: the live workers that work on one of these.
            all: all live workers.

        Returns:
            Those workers.

        Raises:
            WorkerNotFound: no live worker has the name, or works on the queue.
        """
        return drive(orders.drain(orders.Whom(workers, queues, all)), self._redis)

    def suspend(self, *workers: str, queues: Collection[str] = (), all: bool = False) -> list[WorkerRecord]:
        """Lets workers take no runs, or nobody any from some queues, until `resume`; runs in hand go on.

        That is kept in Redis: for queues and the fleet until it is taken back, for a worker as long as it lives.

        Args:
            workers: live workers, by name.
            queues: queues.
            all: the whole fleet, as `rq suspend` does.

        Returns:
            The live workers that it concerns.

        Raises:
            WorkerNotFound: no live worker has the name.
            QueueNotFound: there is no such queue.
        """
        return drive(orders.suspend(orders.Whom(workers, queues, all)), self._redis)

    def resume(self, *workers: str, queues: Collection[str] = (), all: bool = False) -> list[WorkerRecord]:
        """Takes back what `suspend` told, or `drain` told workers that have not ended yet.

        Args:
            workers: live workers, by name.
            queues: queues.
            all: the whole fleet, as `rq resume` does, and each of its workers and queues.

        Returns:
            The live workers that it concerns.

        Raises:
            WorkerNotFound: no live worker has the name.
            QueueNotFound: there is no such queue.
        """
        return drive(orders.resume(orders.Whom(workers, queues, all)), self._redis)

    def _run(self, run_id: str) -> Run:
        return Run(run_id, self._redis, self.settings)


def with_url(settings: Settings | None, url: str | None) -> Settings:
    """Returns the settings, read from file and environment when None; a URL replaces their whole `redis`."""
    settings = configuration.load() if settings is None else settings
    if url is None:
        return settings
    try:
        redis = RedisSettings(url=SecretStr(url))
    except ValidationError as error:
        raise ConfigurationError(describe(error, "the URL")) from None
    return settings.model_copy(update={"redis": redis})

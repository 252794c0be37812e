"""A run, as the caller who submitted it sees it."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowtilla import protocol
from flowtilla.errors import RunDamaged
from flowtilla.logs import LogLine
from flowtilla.record import RunRecord, StageRecord
from flowtilla.settings import Settings
from flowtilla.states import RunState
from flowtilla.steps import drive
from flowtilla.storage import Artifact, ArtifactStore
from flowtilla.storage.results import record_of


class Run:
    """One run. Its id never changes; everything else is read from Redis when it is asked for.

    Args:
        run_id: the run's id.
        redis: a blocking connection.
        settings: where results, logs and artifacts are.
    """

    def __init__(self, run_id: str, redis: Any, settings: Settings) -> None:
        self.id = run_id
        self._redis = redis
        self._settings = settings

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def record(self) -> RunRecord:
        """Everything Redis knows of the run at this moment.

        Raises:
            RunNotFound: its retention has passed.
            QueueUnavailable: Redis cannot be reached.
        """
        return drive(protocol.fetch(self.id), self._redis)

    @property
    def state(self) -> RunState:
        """queued | running | finished | failed | cancelled | quarantined."""
        return self.record.state

    @property
    def stages(self) -> Mapping[str, StageRecord]:
        """What happened to each stage so far: state, counts, timings, attempt, errors by item."""
        return self.record.stages

    @property
    def progress(self) -> tuple[int, int]:
        """How many stages have ended, and how many there are."""
        return self.record.progress

    @property
    def artifacts(self) -> Mapping[str, Artifact]:
        """What the run's stages stored and committed, by name."""
        return artifacts_of(self.record, self._settings)

    def wait(self, timeout: float | None = None) -> RunState:
        """Waits until the run has ended, however it ended; through outages of Redis too, of up to a minute each.

        Args:
            timeout: seconds, or None to wait for ever.

        Returns:
            The state it ended in.

        Raises:
            RunNotFinished: it has not ended in time; it goes on.
            QueueUnavailable: Redis is away at the end of that time, or for longer than a minute.
        """
        return drive(protocol.wait(self.id, timeout), self._redis).state

    def result(self, timeout: float | None = None) -> Any:
        """Waits until the run has ended, as `wait` does, and returns its result.

        Args:
            timeout: seconds, or None to wait for ever.

        Returns:
            The value of the only final stage, or a mapping `{stage: value}` when several stages are final.

        Raises:
            RunFailed: a stage raised; carries class, message, traceback, stage, item.
            RunCancelled: somebody cancelled it.
            RunNotFinished: it has not ended in time; it goes on.
            QueueUnavailable: as `wait` raises it.
        """
        return drive(protocol.result(self.id, timeout, self._settings), self._redis)

    def logs(self, follow: bool = False) -> Iterator[LogLine]:
        """Yields the lines that the run's stages logged and printed.

        Args:
            follow: go on with new lines until the run has ended; through outages of Redis too, as `wait` does.
        """
        position: str | None = ""
        while position is not None:
            lines, position = drive(protocol.log_lines(self.id, position, follow, self._settings), self._redis)
            yield from lines

    def cancel(self) -> None:
        """Cancels the run: at once when it waits, soon when a worker drives it; an ended run stays as it is."""
        drive(protocol.cancel(self.id, self._settings), self._redis)

    def retry(self, at_front: bool = False) -> None:
        """Queues the run again; stages that were committed do not run again.

        Args:
            at_front: before what waits in the queue.

        Raises:
            RunError: it is not one that failed, was cancelled or quarantined.
        """
        drive(protocol.retry(self.id, at_front), self._redis)


def artifacts_of(record: RunRecord, settings: Settings) -> dict[str, Artifact]:
    """Returns the artifacts that a run's stages committed, by name."""
    store = ArtifactStore(settings.storage)
    stored = [record_of(one) for stage in record.stages.values() for one in stage.artifacts]
    if foreign := [one.name for one in stored if one.run_id != record.id]:
        raise RunDamaged(
            f"run {record.id}: Redis says that it stored {', '.join(foreign)}, which another run did", run_id=record.id
        )
    return {one.name: store.artifact(one) for one in stored}

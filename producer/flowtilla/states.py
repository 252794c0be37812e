"""The states of runs and of their stages."""

from enum import StrEnum


class RunState(StrEnum):
    """Where a run is. It compares equal to its plain name."""

    #: Waiting for a worker, or for its time.
    QUEUED = "queued"
    #: A worker drives it.
    RUNNING = "running"
    #: Every stage ended well.
    FINISHED = "finished"
    #: A stage raised, or the run could not begin.
    FAILED = "failed"
    #: Somebody cancelled it.
    CANCELLED = "cancelled"
    #: It took its worker down with it too often.
    QUARANTINED = "quarantined"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (RunState.QUEUED, RunState.RUNNING)


class StageState(StrEnum):
    """Where a stage is. It compares equal to its plain name."""

    #: Its parents are not done.
    WAITING = "waiting"
    #: It, or at least one of its items, was started.
    RUNNING = "running"
    #: Its value is there.
    FINISHED = "finished"
    #: It raised.
    FAILED = "failed"
    #: Something it depends on failed.
    SKIPPED = "skipped"
    #: The run was cancelled first.
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (StageState.WAITING, StageState.RUNNING)


#: RQ's job status, which is the truth, as a run's state. `failed` with a mark on the run is QUARANTINED.
FROM_RQ = {
    "created": RunState.QUEUED,
    "queued": RunState.QUEUED,
    "scheduled": RunState.QUEUED,
    "deferred": RunState.QUEUED,
    "rate_limited": RunState.QUEUED,
    "started": RunState.RUNNING,
    "finished": RunState.FINISHED,
    "failed": RunState.FAILED,
    "canceled": RunState.CANCELLED,
    "stopped": RunState.CANCELLED,
}

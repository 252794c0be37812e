"""The errors flowtilla raises, one tree with one root.

FlowtillaError
├── ConfigurationError            a setting is unknown, missing or contradicts another
├── WorkflowError                 a workflow cannot run as written
│   ├── InvalidWorkflow           the file or mapping breaks a rule; carries the field's path
│   ├── InvalidName               a name, namespace or key breaks the naming rule
│   └── TargetError               a stage's target cannot be resolved to a function
│       └── TargetNotAllowed      the worker's configuration does not permit the target
├── MessageError                  a message in the queue cannot be run
│   ├── MessageTooLarge           the input is over the size limit
│   ├── NotGenuine                not what a holder of a signing key wrote
│   └── UnsupportedVersion        written by a newer flowtilla
├── QueueUnavailable              Redis cannot be reached or refuses
├── QueueFull                     as many runs wait as may
├── RunError                      about one run
│   ├── RunNotFound               no such run (also a KeyError)
│   ├── RunDamaged                what Redis keeps of it cannot be read
│   ├── RunNotFinished            the result is not there yet (also a TimeoutError)
│   ├── RunFailed                 a stage raised; carries class, message, traceback, stage and item
│   │   └── RunQuarantined        the run killed its worker too often
│   └── RunCancelled              somebody cancelled it
├── StageError                    inside a stage
│   ├── NotInStage                `context()` was called outside a stage
│   ├── StageTimeout              a stage or item took longer than its timeout (also a TimeoutError)
│   ├── StageLost                 the process that ran the stage died
│   └── ValueNotStorable          a value cannot be serialised or stored
├── StorageError                  the artifact store refused or failed
│   ├── ArtifactNotFound          no such artifact (also a KeyError)
│   └── ObjectNotFound            no such object (also a KeyError)
├── ExecutorError                 a compute back end failed
│   ├── ExecutorClosed            it was used before `start` or after `close`
│   ├── ResourcesUnavailable      no node could ever meet the request
│   └── ClusterError              about the cluster behind an executor
│       ├── ClusterUnreachable    it cannot be reached, or not yet
│       ├── ClusterMismatch       its Python, libraries or modules are not those of the worker
│       ├── ClusterLost           it was there and is gone; runs on it are tried again
│       └── ValueLost             it goes on, but has lost what a run had there; the run is tried again
└── WorkerError                   a worker cannot start or go on
    ├── WorkerNameTaken           a live worker already has the name
    ├── WorkerNotFound            no live worker has the name, or works on the queue (also a KeyError)
    ├── QueueNotFound             no run was ever in the queue, and no worker works on it (also a KeyError)
    └── LeaseLost                 another attempt owns the run now
"""

from collections.abc import Sequence


class FlowtillaError(Exception):
    """Root of every error that flowtilla raises on purpose."""


class ConfigurationError(FlowtillaError):
    """Raised when a setting is unknown, missing or contradicts another."""


class WorkflowError(FlowtillaError):
    """Raised when a workflow cannot run as written."""


class InvalidWorkflow(WorkflowError):
    """Raised when a workflow breaks a rule; the message names each field's path."""


class InvalidName(WorkflowError, ValueError):
    """Raised when a name, namespace or key breaks the naming rule."""


class TargetError(WorkflowError):
    """Raised when a stage's target cannot be resolved to a function."""


class TargetNotAllowed(TargetError):
    """Raised when the worker's configuration does not permit a stage's target."""


class MessageError(FlowtillaError):
    """Raised when a message in the queue cannot be run."""


class MessageTooLarge(MessageError):
    """Raised when a run's input is over the size limit."""


class NotGenuine(MessageError):
    """Raised when a run is not, or not as it is now, what a holder of a signing key submitted."""


class UnsupportedVersion(MessageError):
    """Raised when a message was written by a newer flowtilla."""


class QueueUnavailable(FlowtillaError):
    """Raised when Redis cannot be reached or refuses."""


class QueueFull(FlowtillaError):
    """Raised when as many runs wait, in a queue or of a namespace in it, as may.

    Args:
        message: the whole sentence.
        queue, namespace: where the run was to wait.
        queued: the ids of those submitted together with it that were queued; the others were not.
    """

    def __init__(self, message: str, *, queue: str, namespace: str, queued: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.queue = queue
        self.namespace = namespace
        self.queued = list(queued)


class RunError(FlowtillaError):
    """Raised about one run, which `run_id` names."""

    def __init__(self, message: str, *, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class RunNotFound(RunError, KeyError):
    """Raised when no run has this id, or its retention has passed."""

    # KeyError would print the message in quotes.
    __str__ = Exception.__str__


class RunDamaged(RunError):
    """Raised when what Redis keeps of a run cannot be read."""


class RunNotFinished(RunError, TimeoutError):
    """Raised when a run did not end within the time given."""


class RunFailed(RunError):
    """Raised by `run.result()` when a stage raised.

    Args:
        message: the whole sentence.
        run_id: the run.
        error: the class of the original exception, as `module.QualName`.
        error_message: what the original exception said.
        traceback: its full traceback.
        stage: the stage that raised, or None when the run failed outside one.
        item: the index of the mapped item, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        run_id: str,
        error: str = "",
        error_message: str = "",
        traceback: str = "",
        stage: str | None = None,
        item: int | None = None,
    ) -> None:
        super().__init__(message, run_id=run_id)
        self.error = error
        self.error_message = error_message
        self.traceback = traceback
        self.stage = stage
        self.item = item


class RunQuarantined(RunFailed):
    """Raised by `run.result()` when the run killed its worker too often."""


class RunCancelled(RunError):
    """Raised by `run.result()` when somebody cancelled the run."""


class StageError(FlowtillaError):
    """Raised inside a stage, or about one."""


class NotInStage(StageError):
    """Raised when `flowtilla.context()` is called outside a stage."""


class StageTimeout(StageError, TimeoutError):
    """Raised when a stage or item took longer than its timeout."""


class StageLost(StageError):
    """Raised when the process that ran a stage died."""


class ValueNotStorable(StageError):
    """Raised when a value cannot be serialised or stored."""


class StorageError(FlowtillaError):
    """Raised when the artifact store refused or failed."""


class ArtifactNotFound(StorageError, KeyError):
    """Raised when the namespace has no artifact of this name."""

    __str__ = Exception.__str__


class ObjectNotFound(StorageError, KeyError):
    """Raised when the namespace has no object of this key."""

    __str__ = Exception.__str__


class ExecutorError(FlowtillaError):
    """Raised when a compute back end failed."""


class ExecutorClosed(ExecutorError):
    """Raised when an executor is used before `start` or after `close`."""


class ResourcesUnavailable(ExecutorError):
    """Raised when no node could ever meet a stage's resources."""


class ClusterError(ExecutorError):
    """Raised about the cluster behind an executor."""


class ClusterUnreachable(ClusterError):
    """Raised when a cluster cannot be reached, or not yet."""


class ClusterMismatch(ClusterError):
    """Raised when a cluster's Python, libraries or modules are not those of the worker."""


class ClusterLost(ClusterError):
    """Raised when a cluster that was there is gone; runs on it are tried again."""


class ValueLost(ClusterError):
    """Raised when a cluster goes on, but has lost a value or dropped a call; the run they belong to is tried again."""


class WorkerError(FlowtillaError):
    """Raised when a worker cannot start or go on."""


class WorkerNameTaken(WorkerError):
    """Raised when a live worker already has the name."""


class WorkerNotFound(WorkerError, KeyError):
    """Raised when no live worker has the name, or works on the queue."""

    __str__ = Exception.__str__


class QueueNotFound(WorkerError, KeyError):
    """Raised when no run was ever in the queue, and no live worker works on it."""

    __str__ = Exception.__str__


class LeaseLost(WorkerError):
    """Raised when another attempt owns the run now."""

"""The name of every Redis key, ours and those of RQ that we share."""

from rq.defaults import RQ_KEY_PREFIX as RQ

from flowtilla.errors import InvalidName

#: RQ's set of queue keys.
QUEUES = f"{RQ}:queues"
#: RQ's set of the keys of workers.
WORKERS = f"{RQ}:workers"
#: RQ's switch that `rq suspend` sets.
SUSPENDED = f"{RQ}:suspended"

#: Follows RQ's prefix, so that two installations on one Redis stay apart.
_OURS = "flowtilla" if RQ == "rq" else f"{RQ}:flowtilla"

#: Sorted set: run id -> when its lease expires, in milliseconds.
LEASES = f"{_OURS}:leases"
#: Hash: when a worker last looked for expired leases, and until when the fleet is patient; in milliseconds.
LOOKED = f"{_OURS}:looked"
#: String: when the fleet's last sweep began, in milliseconds.
SWEPT = f"{_OURS}:swept"
#: Sorted set: `namespace/run id` -> when the run's files may be removed, in seconds.
ENDED = f"{_OURS}:ended"
#: Set: every namespace that has runs.
NAMESPACES = f"{_OURS}:namespaces"
#: RQ's set of the keys that limit how many runs are in hand at once.
LIMITED = f"{RQ}:rl-keys"
#: What the keys of a single run begin with.
RUN = f"{_OURS}:run:"
#: List: what was found in a queue and cannot even be shown as a job, newest first.
DAMAGED = f"{_OURS}:damaged"


def job(run_id: str) -> str:
    """Hash: the RQ job; the run's own fields live in it too, so that both always go together."""
    return f"{RQ}:job:{run_id}"


def results(run_id: str) -> str:
    """Stream: the results RQ and its dashboards read; waiting for a run is reading from it."""
    return f"{RQ}:results:{run_id}"


def queue(name: str) -> str:
    """List: the ids of queued jobs; those of other namespaces than `default` are in one beside it, `name@namespace`."""
    return f"{RQ}:queue:{name}"


def turns(queue_name: str) -> str:
    """Sorted set: the namespaces that have runs in the queue; whose turn it is has the lowest score."""
    return f"{_OURS}:turns:{queue_name}"


def arrived(queue_name: str) -> str:
    """Set: the namespaces that have had runs in the queue again since the last claim."""
    return f"{_OURS}:arrived:{queue_name}"


def held(queue_name: str) -> str:
    """Set: the ids of the queue's runs that wait for a limit of theirs; `queue@namespace` has one namespace's."""
    return f"{_OURS}:held:{queue_name}"


def limit(name: str) -> str:
    """Hash: RQ's rate limit of that key; the runs that it lets go on, and those that wait, are in keys behind it."""
    return f"{RQ}:rl:{name}"


def registry(kind: str, name: str) -> str:
    """Sorted set: one of RQ's registries (`wip`, `finished`, `failed`, `canceled`, `scheduled`) of a queue."""
    return f"{RQ}:{kind}:{name}"


def worker(name: str) -> str:
    """Hash: RQ's record of a worker, with fields of our own."""
    return f"{RQ}:worker:{name}"


def claim(worker_name: str) -> str:
    """String: the ids of the runs that a worker claimed last; kept for a minute."""
    return f"{_OURS}:claim:{worker_name}"


def order(worker_name: str) -> str:
    """String: what the worker was told, a `workers.Order`; goes with the worker."""
    return f"{_OURS}:order:{worker_name}"


def suspended(queue_name: str) -> str:
    """String: there while nobody takes runs from the queue."""
    return f"{_OURS}:suspended:{queue_name}"


def commands(worker_name: str) -> str:
    """Channel: RQ's commands to a worker."""
    return f"{RQ}:pubsub:{worker_name}"


def wake(queue_name: str) -> str:
    """Channel: something was pushed onto the queue."""
    return f"{_OURS}:wake:{queue_name}"


def stages(run_id: str) -> str:
    """Hash: stage -> its record."""
    return f"{RUN}{run_id}:stages"


def values(run_id: str) -> str:
    """Hash: stage -> its committed value, or where that is."""
    return f"{RUN}{run_id}:values"


def log(run_id: str) -> str:
    """Stream: the newest lines of the run's log."""
    return f"{RUN}{run_id}:log"


def runs(namespace: str) -> str:
    """Sorted set: run id -> when it was submitted, in seconds."""
    return f"{_OURS}:runs:{namespace}"


def line_name(key: str) -> tuple[str, str]:
    """Returns the queue that a key made by `queue` is of, and the namespace whose line it is; '' for RQ's own list.

    Raises:
        InvalidName: it is no such key.
    """
    prefix = queue("")
    if not key.startswith(prefix):
        raise InvalidName(f"{key!r} is not the key of a queue")
    name, _, namespace = key.removeprefix(prefix).partition("@")
    return name, namespace

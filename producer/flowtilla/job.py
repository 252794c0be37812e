"""What a plain `rq worker` meets when it takes one of our jobs: a clear refusal that puts the job back.

A job's `func_name` is `run` and its failure callback is `refuse`. Our own workers call neither. A plain worker that
reads JSON calls `run`; one that reads pickle cannot even decode the arguments; both then call `refuse`, whose error
RQ records in place of the first. The job carries RQ retries, so RQ schedules it again instead of failing it.
"""

from typing import Any, NoReturn

from flowtilla.errors import WorkerError

#: How often a plain worker may refuse before RQ gives the job up: never, in practice.
REFUSALS = 1_000_000

#: Seconds until a refused job is queued again, so that a plain worker does not spin on it.
REFUSED_FOR = 5

#: The dotted path that the job's `failure_callback_name` holds.
CALLBACK = "flowtilla.job.refuse"


def run(**message: Any) -> NoReturn:
    """Refuses to run outside a flowtilla worker."""
    refuse()


def refuse(*args: Any) -> NoReturn:
    """Says why the job was put back.

    Raises:
        WorkerError: always.
    """
    raise WorkerError(
        "this job is a flowtilla run, which a plain `rq worker` cannot run: it was put back on its queue untouched. "
        "Start `flowtilla worker` for this queue, and give plain RQ jobs a queue of their own."
    )

"""Why a run is stopped before its end."""

import traceback
from enum import Enum


class Halt(Enum):
    """Why a run is stopped before its end."""

    #: Somebody cancelled it: it ends as cancelled.
    CANCELLED = "cancelled"
    #: The worker stops: the run goes back to the front of its queue.
    HANDED_BACK = "handed back"
    #: The cluster it ran on is gone: the run goes back to the front of its queue, and that is counted.
    CLUSTER_LOST = "lost its cluster"
    #: A fault of ours ended the attempt: the run goes back to the front of its queue, and that is counted.
    BROKE = "broke"
    #: Another attempt owns it: nothing more is written.
    LOST = "lost"


def fault() -> str:
    """Returns the reason of a run whose attempt ends by the exception that is being handled, a fault of ours."""
    return f"a fault of flowtilla, please report it:\n{traceback.format_exc()}"

"""How many runs that share a key may be in workers' hands at once, as a job says it."""

import json
from collections.abc import Mapping

from flowtilla.errors import MessageError
from flowtilla.names import check_name
from flowtilla.workflow import Workflow

#: How many limits a run may have; the scripts heed no more.
_MOST = 16


def limit_fields(workflow: Workflow, namespace: str, concurrency: Mapping[str, int] | None) -> dict[str, str]:
    """Returns the fields of a job that limit how many runs like it are in hand at once; none when nothing does.

    Args:
        workflow: may have a limit of its own, for each namespace.
        namespace: the run's.
        concurrency: further limits, by keys that the whole fleet shares.

    Raises:
        MessageError: a limit is no number of runs, or there are too many.
        InvalidName: a key breaks the naming rule.
    """
    limits = {} if workflow.concurrency is None else {f"workflow:{namespace}:{workflow.name}": workflow.concurrency}
    for key, most in (concurrency or {}).items():
        if type(most) is not int or most < 1:
            raise MessageError(f"concurrency: {key!r} may have 1 run at once, or more, not {most!r}")
        limits[f"key:{check_name(key, 'concurrency key')}"] = most
    if len(limits) > _MOST:
        raise MessageError(f"concurrency: a run may have {_MOST} limits at most, and this one has {len(limits)}")
    if not limits:
        return {}
    first, most = next(iter(limits.items()))
    # RQ knows of one, and its tools heed that; the worker heeds all.
    known = {"rate_limit_key": first, "rate_limit_concurrency": str(most)}
    return {"limits": json.dumps(list(limits.items()), separators=(",", ":")), **known}

"""How long runs were in nobody's hands: from what befell their worker to their next attempt."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .faults import Incident
from .history import Event

#: What befalls a worker so that its runs are taken from it.
_DEADLY = ("kill", "kill with children", "freeze", "cut off", "death", "deploy")

#: What a worker outlives.
PASSING = ("freeze", "cut off")

#: Seconds until a worker that was started works, at most.
_UP = 10.0


@dataclass(frozen=True)
class Loss:
    """A run that was taken from its worker.

    Args:
        run_id, attempt: which, and the attempt that was lost.
        worker: from whom.
        cause: what befell it; None when nothing did.
        seconds: until the next attempt; None when there was none.
        clear: whether Redis was there all the time, and another worker to which nothing happened.
    """

    run_id: str
    attempt: int
    worker: str
    cause: str | None
    seconds: float | None
    clear: bool


def losses(
    history: Mapping[str, Sequence[Event]], incidents: Sequence[Incident], workers: Sequence[str]
) -> Iterator[Loss]:
    """Yields every run that was taken from a worker."""
    for run_id, events in history.items():
        claims = {event.token: event for event in events if event.kind == "claimed"}
        for place, event in enumerate(events):
            if event.kind != "reaped":
                continue
            claim = claims[event.token]
            following = next((one for one in events[place:] if one.kind == "claimed"), None)
            cause = _cause(claim, event, incidents)
            seconds = following.at - max(cause.began, claim.at) if cause and following else None
            end = following.at if following else event.at
            began = cause.began if cause else claim.at
            # What has just been started again needs some seconds until it works.
            beset = {one.target for one in incidents if one.began < end and one.ended > began - _UP}
            clear = "redis" not in beset and not beset.issuperset(workers)
            yield Loss(run_id, claim.attempt, claim.name, cause and cause.kind, seconds, clear)


def _cause(claim: Event, reaped: Event, incidents: Sequence[Incident]) -> Incident | None:
    """Returns what befell the worker last while it had the run."""
    # A claim may be carried out when who sent it is long gone, if it waited in a Redis that stood still.
    fitting = [
        one
        for one in incidents
        if one.name == claim.name
        and one.kind in _DEADLY
        and one.began <= reaped.at + 1
        and (one.ended >= claim.at or one.kind not in PASSING)
    ]
    return max(fitting, key=lambda one: one.began, default=None)


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

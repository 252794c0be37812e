"""Runs that take down what they run on."""

import json
from collections.abc import Iterable, Mapping

from flowtilla.errors import RunQuarantined
from flowtilla.logs import LogLine
from flowtilla.record import StageRecord
from flowtilla.states import StageState
from flowtilla_worker.attempt import Claim

#: A run that took its worker down this often in a row, with no stage ending between, is set aside.
MAX_STRIKES = 3

#: So is one that lost its cluster this often: clusters die of other things too, so it is given more.
MAX_CLUSTER_STRIKES = 5


def suspect(claim: Claim) -> bool:
    """Returns whether the run has a worker to itself: with one loss more it would be set aside."""
    strikes, clusters = claim.count("strikes"), claim.count("cluster_strikes")
    return strikes >= MAX_STRIKES - 1 or clusters >= MAX_CLUSTER_STRIKES - 1


def poison(claim: Claim, earlier: Mapping[str, StageRecord], tail: Iterable[LogLine]) -> RunQuarantined | None:
    """Returns why a run is to be set aside, if it is.

    Args:
        claim: the run.
        earlier: what earlier attempts recorded of its stages.
        tail: the last lines of its log.
    """
    strikes, clusters = claim.count("strikes"), claim.count("cluster_strikes")
    if strikes >= MAX_STRIKES:
        what, how = f"the run took its worker down {strikes} times in a row", _how(claim.job.get("lost_worker", b"{}"))
    elif clusters >= MAX_CLUSTER_STRIKES:
        what, how = f"the run lost its cluster {clusters} times in a row", ""
    else:
        return None
    running = [name for name, record in earlier.items() if record.state is StageState.RUNNING]
    where = f" while {', '.join(running)} ran" if running else ""
    advice = f"look at its log, then `flowtilla retry {claim.run_id}`"
    lines = "".join(f"\n  {line}" for line in tail)
    said = f"\nits last lines were:{lines}" if lines else ""
    return RunQuarantined(f"{what}{where}, so it was set aside{how}: {advice}{said}", run_id=claim.run_id)


def _how(lost_worker: bytes) -> str:
    """Returns what is known of the last worker that went down."""
    try:
        known = {name: str(value) for name, value in json.loads(lost_worker).items()}
    except (ValueError, AttributeError):
        return ""
    if not known.get("hostname"):
        return ""
    ending = known.get("ending", "an unknown ending, since no supervisor saw it")
    peak = known.get("peak_memory", "")
    memory = f", after it had used {int(peak) / 2**20:,.0f} MiB of memory at most" if peak.isdigit() else ""
    return f" (the last of them, pid {known.get('pid')} on {known['hostname']}, had {ending}{memory})"

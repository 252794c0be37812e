"""Runs that take down what they run on."""

from collections.abc import Mapping

from flowtilla.errors import RunQuarantined
from flowtilla.record import StageRecord
from flowtilla.states import StageState
from flowtilla_worker.attempt import Claim

#: A run that took its worker down this often is set aside.
MAX_LOSSES = 3

#: So is one that lost its cluster this often: clusters die of other things too, so it is given more.
MAX_CLUSTER_LOSSES = 5


def losses(claim: Claim) -> int:
    """Returns how many workers died or froze with the run in hand."""
    return int(claim.job.get("losses", 0))


def poison(claim: Claim, earlier: Mapping[str, StageRecord]) -> RunQuarantined | None:
    """Returns why a run is to be set aside, if it is.

    Args:
        claim: the run.
        earlier: what earlier attempts recorded of its stages.
    """
    workers, clusters = losses(claim), int(claim.job.get("cluster_losses", 0))
    if workers >= MAX_LOSSES:
        what = f"the run took its worker down {workers} times"
    elif clusters >= MAX_CLUSTER_LOSSES:
        what = f"the run lost its cluster {clusters} times"
    else:
        return None
    running = [name for name, record in earlier.items() if record.state is StageState.RUNNING]
    where = f" while {', '.join(running)} ran" if running else ""
    advice = f"look at its log, then `flowtilla retry {claim.run_id}`"
    return RunQuarantined(f"{what}{where}, so it was set aside: {advice}", run_id=claim.run_id)

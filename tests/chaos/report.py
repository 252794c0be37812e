"""What a run of the harness has to show: one row of a table, and what is wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flowtilla.record import RunRecord

from .faults import Incident
from .producers import Producers
from .recovery import Loss, percentile

HEAD = (
    "| executor | seed | minutes | runs | attempts | killed | frozen | cut off | deploys "
    "| Redis restarted, killed, frozen | cluster killed | cancels | retries "
    "| recoveries | p50, p90, p99, most | violations |"
)


@dataclass(frozen=True)
class Report:
    """All that was counted.

    Args:
        executor, seed, minutes: what was asked for.
        records: of all runs.
        incidents: what was done to the fleet.
        losses: the runs that were taken from their workers.
        producers: who submitted.
        wrong: all that is wrong.
    """

    executor: str
    seed: int
    minutes: float
    records: Mapping[str, RunRecord]
    incidents: Sequence[Incident]
    losses: Sequence[Loss]
    producers: Producers
    wrong: Sequence[str]

    def row(self) -> str:
        """Returns the row of the table, in Markdown."""
        worker = self._counted("worker")
        redis = self._counted("redis")
        killed = worker["kill"] + worker["kill with children"]
        seconds = self._seconds(clear=True)
        cells = [
            self.executor,
            self.seed,
            f"{self.minutes:g}",
            len(self.records),
            sum(record.attempt for record in self.records.values()),
            killed,
            worker["freeze"],
            worker["cut off"],
            worker["deploy"],
            f"{redis['restart']}, {redis['kill']}, {redis['freeze']}",
            self._counted("cluster").total(),
            len(self.producers.cancelled),
            len(self.producers.retried),
            len(seconds),
            _percentiles(seconds),
            len(self.wrong),
        ]
        return f"| {' | '.join(map(str, cells))} |"

    def details(self) -> str:
        """Returns what the row leaves out."""
        states = Counter(record.state.value for record in self.records.values())
        causes = Counter(loss.cause or "nothing" for loss in self.losses)
        lines = [
            f"runs by state: {dict(states)}",
            f"runs by attempts: {dict(sorted(Counter(record.attempt for record in self.records.values()).items()))}",
            f"taken from their worker because of: {dict(causes)}",
            f"until the next attempt, whatever else was down: {_percentiles(self._seconds(clear=False))}",
            f"workers that died of themselves: {self._counted('worker')['death']}",
        ]
        slow = sorted((loss for loss in self.losses if loss.seconds), key=lambda loss: -(loss.seconds or 0))
        return "\n".join([*lines, *(f"  slowest: {loss}" for loss in slow[:5])])

    def _counted(self, target: str) -> Counter[str]:
        return Counter(one.kind for one in self.incidents if one.target.startswith(target))

    def _seconds(self, clear: bool) -> list[float]:
        """Returns the recoveries, or only those while Redis was there, and a worker to which nothing happened."""
        return [loss.seconds for loss in self.losses if loss.clear >= clear and loss.seconds is not None]


def _percentiles(seconds: Sequence[float]) -> str:
    return ", ".join(f"{percentile(seconds, share):.1f} s" for share in (0.5, 0.9, 0.99, 1)) if seconds else "none"

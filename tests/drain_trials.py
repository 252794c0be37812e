"""Workers under load, told to stop again and again: how long each takes to end, and whether any run suffers by it.

python tests/drain_trials.py [TRIALS] [--lanes 4] [--grace 5] [--executor '{target: local, mode: threads}']
"""

import argparse
import random
import re
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from redis import Redis

import flowtilla
from fleet import Fleet, until
from flowtilla_worker.dev.embedded import EmbeddedValkey

#: What somebody would have to answer for, had a worker lost a run.
_HELD_AGAINST = ("losses", "strikes", "crashes", "cluster_losses")

#: How many runs a worker has in hand at most, and for how many workers there are runs in the queue.
_CONCURRENCY, _AHEAD = 4, 4


@dataclass(frozen=True)
class Trial:
    """How one worker ended: after so many seconds, with which code, having handed back so many runs, told twice."""

    seconds: float
    code: int
    handed_back: int
    twice: bool


class Trials:
    """Makes trials, several at once, and keeps the queue full meanwhile.

    Args:
        fleet: where workers are started.
        redis: the fleet's server.
        grace: the workers'.
        executor: theirs.
    """

    def __init__(self, fleet: Fleet, redis: Redis, grace: float, executor: dict[str, Any]) -> None:
        self._fleet = fleet
        self._redis = redis
        self._grace = grace
        self._settings = {"grace": grace, "concurrency": _CONCURRENCY, "modules": '["drained_stages"]'}
        self._executor = executor
        stages = [
            {"name": "leaves", "target": "drained_stages.leaves"},
            {"name": "naps", "target": "drained_stages.naps", "depends_on": ["leaves"]},
            {"name": "goes", "target": "drained_stages.goes", "depends_on": ["naps"]},
        ]
        self._workflow = flowtilla.Workflow("drained", stages)
        self.runs: list[flowtilla.Run] = []

    def make(self, count: int, lanes: int) -> list[Trial]:
        """Makes so many trials, so many at once."""
        with self.fed(lanes, _naps), ThreadPoolExecutor(lanes) as pool:
            return list(pool.map(self._trial, range(count)))

    @contextmanager
    def fed(self, lanes: int, naps: Callable[[], list[float]]) -> Iterator[None]:
        """Keeps the queue full for so many workers; each run's attempts take what `naps` returns."""
        over = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            feeding = pool.submit(self._feed, _AHEAD * _CONCURRENCY * lanes, naps, over)
            try:
                yield
            finally:
                over.set()
                feeding.result()

    def start(self, name: str, burst: bool = False) -> None:
        """Starts a worker."""
        arguments = ["--burst"] if burst else []
        self._fleet.start(name, *arguments, executor=self._executor, lease="10s", heartbeat="3s", **self._settings)

    def check(self, seconds: float = 60) -> int:
        """Lets another worker do what is left, makes sure that no run suffered, and returns how many there were."""
        self.start("last", burst=True)
        assert self._fleet.ended("last", seconds=seconds) == 0
        left = [line.split() for line in self._fleet.marks("left")]
        for run in self.runs:
            assert run.wait(timeout=seconds) == "finished"
            job = self._redis.hmget(f"rq:job:{run.id}", *_HELD_AGAINST)
            assert job == [None] * len(job), (run.id, job)
        committed = {run.id: run.stages["leaves"].attempt for run in self.runs}
        assert [(run_id, attempt) for run_id, attempt in left if int(attempt) > committed[run_id]] == []
        assert {run_id for run_id, _ in left} == committed.keys()
        for key in ("flowtilla:leases", "rq:wip:default"):
            assert self._redis.zcard(key) == 0, key
        assert self._redis.llen("rq:queue:default") == 0
        return len(self.runs)

    def _feed(self, enough: int, naps: Callable[[], list[float]], over: threading.Event) -> None:
        folder = str(self._fleet.folder)
        while not over.wait(0.1):
            missing = enough - int(self._redis.llen("rq:queue:default"))
            given = [{"folder": folder, "naps": naps()} for _ in range(missing)]
            self.runs += self._fleet.client.submit_many([{"workflow": self._workflow, "input": one} for one in given])

    def _trial(self, number: int) -> Trial:
        name = f"w{number}"
        self.start(name)
        until(lambda: "executor is ready" in self._fleet.said(name), seconds=60)
        time.sleep(random.uniform(0.1, 1.0))
        begun = time.monotonic()
        self._fleet.kill(name, signal.SIGTERM)
        twice = random.random() < 0.25
        if twice:
            time.sleep(random.uniform(0.05, 1.0))
            self._fleet.kill(name, signal.SIGTERM)
        code = self._fleet.ended(name, seconds=120)
        took = time.monotonic() - begun
        said = self._fleet.said(name)
        if code == 0 and took < self._grace:
            # What the others said is shown in the end.
            del self._fleet.workers[name]
        handed_back = re.search(r"handing back (\d+) runs", said)
        return Trial(took, code, int(handed_back[1]) if handed_back else 0, twice)


def _naps() -> list[float]:
    """Returns the seconds that a run takes in its first attempts: often short, at times longer than the grace."""
    return [random.choice((random.uniform(0, 0.5), random.uniform(0, 3), random.uniform(3, 10))) for _ in range(2)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("trials", type=int, nargs="?", default=100)
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--grace", type=float, default=5.0)
    parser.add_argument("--executor", type=yaml.safe_load, default={"target": "local", "mode": "threads", "cpus": 4})
    options = parser.parse_args()
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedValkey(Path(folder, "server"), persistent=True) as server,
        Redis.from_url(server.url) as redis,
        Fleet(server.url, Path(folder)) as fleet,
    ):
        trials = Trials(fleet, redis, options.grace, options.executor)
        made = trials.make(options.trials, options.lanes)
        print(f"{len(made)} trials in {time.monotonic() - begun:.0f} s; grace {options.grace:g} s; {options.executor}")
        print(f"{trials.check(seconds=600)} runs ended well, none lost, nothing held against any")
    _show("finished in time", [one for one in made if not one.handed_back and not one.twice])
    _show("some handed back", [one for one in made if one.handed_back and not one.twice])
    _show("told twice", [one for one in made if one.twice])
    _show("all", made)
    bad = [one for one in made if one.code or one.seconds >= options.grace]
    print(f"{len(made) - len(bad)} of {len(made)} ended well and in under the grace", *bad, sep="\n")


def _show(what: str, trials: list[Trial]) -> None:
    if len(trials) > 1:
        times = [one.seconds for one in trials]
        at = statistics.quantiles(times, n=100, method="inclusive")
        print(f"{what:18} {len(times):5}  p50 {at[49]:.2f}  p90 {at[89]:.2f}  p99 {at[98]:.2f}  max {max(times):.2f} s")


if __name__ == "__main__":
    main()

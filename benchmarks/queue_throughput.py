"""No-op runs a second, idle latency and submission, beside RQ's `SimpleWorker` on the same server in the same minutes.

    python benchmarks/queue_throughput.py [--runs 3000] [--repeats 5]

Both work through a queue that was filled before, in a process of their own, with all their bookkeeping on. They take
turns, so that whatever else the machine does meets both; medians are shown.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import redis
import rq
from rq.serializers import JSONSerializer

import flowtilla
from flowtilla.settings import Settings
from flowtilla_worker.embedded import EmbeddedValkey

HERE = Path(__file__).parent
NOOP = flowtilla.Workflow("noop", [flowtilla.Stage(name="nothing", target="noop.nothing")])

OURS = """
import time
from flowtilla import config
from flowtilla_worker.main import run_worker
if __name__ == "__main__":
    import sys
    begun = time.perf_counter()
    run_worker(config.load(), burst=sys.argv[1] == "burst")
    print(time.perf_counter() - begun)
"""

THEIRS = """
import sys, time, os
import redis, rq, logging
from rq.serializers import JSONSerializer
import noop
connection = redis.Redis.from_url(os.environ["FLOWTILLA__REDIS__URL"])
worker = rq.SimpleWorker(["rq"], connection=connection, serializer=JSONSerializer)
begun = time.perf_counter()
worker.work(burst=sys.argv[1] == "burst", logging_level="WARNING")
print(time.perf_counter() - begun)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder), persistent=True) as server:
        bench = Bench(server.url, Path(folder))
        ours, theirs = [], []
        for _ in range(options.repeats):
            ours.append(bench.ours(options.runs))
            theirs.append(bench.theirs(max(options.runs // 10, 100)))
        show("runs/s", median(ours, 0), median(theirs, 0))
        show("round trips a run", median(ours, 1), median(theirs, 1))
        show("submit_many, runs/s", median(ours, 2), median(theirs, 2))
        show("idle, submit to result, p50 ms", *bench.latency(0.5))


class Bench:
    """Measures on one server.

    Args:
        url: the server's.
        folder: for storage.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.redis = redis.Redis.from_url(url)
        self.client = flowtilla.Client(settings=Settings.model_validate({"redis": {"url": url}}))
        self.env = os.environ | {
            "PYTHONPATH": str(HERE),
            "FLOWTILLA__REDIS__URL": url,
            "FLOWTILLA__STORAGE__BASE_PATH": str(folder / "storage"),
            "FLOWTILLA__SERVICES__COMPUTE__EXECUTOR": '{"target": "local", "mode": "threads", "cpus": 2}',
            "FLOWTILLA__SERVICES__WORKER__CONCURRENCY": "64",
            "FLOWTILLA__SERVICES__WORKER__MODULES": '["noop"]',
            "FLOWTILLA__LOGGING__LEVEL": "WARNING",
        }

    def ours(self, runs: int) -> tuple[float, float, float]:
        """Returns runs a second, round trips a run, submissions a second."""
        begun = time.perf_counter()
        self.client.submit_many([{"workflow": NOOP}] * runs)
        submitting = time.perf_counter() - begun
        return self._work(OURS, runs, submitting)

    def theirs(self, runs: int) -> tuple[float, float, float]:
        """Returns the same of RQ."""
        queue = rq.Queue("rq", connection=self.redis, serializer=JSONSerializer)
        begun = time.perf_counter()
        queue.enqueue_many([rq.Queue.prepare_data("noop.job") for _ in range(runs)])
        submitting = time.perf_counter() - begun
        return self._work(THEIRS, runs, submitting)

    def latency(self, quantile: float, tries: int = 200) -> tuple[float, float]:
        """Returns the milliseconds from submitting to having the result, on an idle worker: ours and RQ's."""
        found = []
        for code, once in ((OURS, self._our_round), (THEIRS, self._their_round)):
            worker = self._start(code, "serve")
            try:
                once()
                times = sorted(_timed(once) for _ in range(tries))
                found.append(times[int(len(times) * quantile)] * 1000)
            finally:
                worker.terminate()
                worker.wait()
        return found[0], found[1]

    def _our_round(self) -> None:
        self.client.submit(NOOP).result(timeout=30)

    def _their_round(self) -> None:
        job = rq.Queue("rq", connection=self.redis, serializer=JSONSerializer).enqueue("noop.job")
        assert job.latest_result(timeout=30) is not None

    def _work(self, code: str, runs: int, submitting: float) -> tuple[float, float, float]:
        before = int(self.redis.info("stats")["total_reads_processed"])
        worker = self._start(code, "burst")
        seconds = float(worker.communicate()[0])
        trips = int(self.redis.info("stats")["total_reads_processed"]) - before
        return runs / seconds, trips / runs, runs / submitting

    def _start(self, code: str, how: str) -> "subprocess.Popen[str]":
        return subprocess.Popen([sys.executable, "-c", code, how], env=self.env, stdout=subprocess.PIPE, text=True)


def _timed(once: Callable[[], None]) -> float:
    begun = time.perf_counter()
    once()
    return time.perf_counter() - begun


def median(rounds: list[tuple[float, float, float]], which: int) -> float:
    return statistics.median(one[which] for one in rounds)


def show(what: str, ours: float, theirs: float) -> None:
    print(f"{what:34} flowtilla {ours:10.2f}   RQ {theirs:10.2f}   ratio {ours / theirs:6.2f}")


if __name__ == "__main__":
    main()

"""No-op runs a second, idle latency and submission, beside RQ's `SimpleWorker` on the same server in the same minutes.

    python benchmarks/queue_throughput.py [--runs 3000] [--repeats 5]

Both work through a queue that was filled before, in a process of their own, with all their bookkeeping on. They take
turns, so that whatever else the machine does meets both; medians are shown.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import rq
from rq.serializers import JSONSerializer

import flowtilla
from fleet import Bench, bench

NOOP = flowtilla.Workflow("noop", [flowtilla.Stage(name="nothing", target="noop.nothing")])

#: Both begin to count when their process is up.
OURS = """
import sys, time
from flowtilla import config
from flowtilla_worker.main import run_worker
if __name__ == "__main__":
    begun = time.perf_counter()
    run_worker(config.load(), burst=sys.argv[1] == "burst")
    print(time.perf_counter() - begun)
"""

THEIRS = """
import os, sys, time
import redis, rq
from rq.serializers import JSONSerializer
import noop
connection = redis.Redis.from_url(os.environ["FLOWTILLA__REDIS__URL"])
worker = rq.SimpleWorker(["rq"], connection=connection, serializer=JSONSerializer)
begun = time.perf_counter()
worker.work(burst=sys.argv[1] == "burst", logging_level="WARNING")
print(time.perf_counter() - begun)
"""

SETTINGS = {
    "FLOWTILLA__SERVICES__COMPUTE__EXECUTOR": '{"target": "local", "mode": "threads", "cpus": 2}',
    "FLOWTILLA__LOGGING__LEVEL": "WARNING",
}

#: Runs a second, round trips a run, submissions a second.
Round = tuple[float, float, float]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with bench() as on:
        ours, theirs = [], []
        for _ in range(options.repeats):
            ours.append(our_round(on, options.runs))
            theirs.append(their_round(on, options.runs))
        for which, what in enumerate(("runs/s", "round trips a run", "submit_many, runs/s")):
            show(what, median(ours, which), median(theirs, which))
        for pause in (0.0, 0.02):
            our_times, their_times = latencies(on, pause)
            what = f"submit to result, {f'each after {pause * 1000:.0f} ms' if pause else 'one after another'}"
            show(f"{what}, p50 ms", our_times[100], their_times[100])
            show(f"{what}, p99 ms", our_times[198], their_times[198])


def our_round(on: Bench, runs: int) -> Round:
    """Fills the queue and works it off, with flowtilla."""
    begun = time.perf_counter()
    on.client.submit_many([{"workflow": NOOP}] * runs)
    return work(on, OURS, runs, time.perf_counter() - begun)


def their_round(on: Bench, runs: int) -> Round:
    """Fills the queue with as many jobs, and works off a tenth of them, with RQ."""
    queue = rq.Queue("rq", connection=on.redis, serializer=JSONSerializer)
    begun = time.perf_counter()
    queue.enqueue_many([rq.Queue.prepare_data("noop.job") for _ in range(runs)])
    submitting = (time.perf_counter() - begun) / 10
    on.redis.ltrim(queue.key, 0, runs // 10 - 1)
    return work(on, THEIRS, runs // 10, submitting)


def work(on: Bench, code: str, runs: int, submitting: float) -> Round:
    """Runs a worker until the queue is empty."""
    before = int(on.redis.info("stats")["total_reads_processed"])
    seconds = float(start(on, code, "burst").communicate()[0])
    trips = int(on.redis.info("stats")["total_reads_processed"]) - before
    return runs / seconds, trips / runs, runs / submitting


def start(on: Bench, code: str, how: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", code, how], env=on.env | SETTINGS, stdout=subprocess.PIPE, text=True)


def latencies(on: Bench, pause: float, tries: int = 200, turn_of: int = 20) -> list[list[float]]:
    """Returns the milliseconds from submitting to having the result, on idle workers, sorted: ours and RQ's.

    Both workers run, and take turns of so many rounds. After a pause processor and processes are cold.
    """
    queue = rq.Queue("rq", connection=on.redis, serializer=JSONSerializer)

    def our_turn() -> None:
        on.client.submit(NOOP).result(timeout=30)

    def their_turn() -> None:
        assert queue.enqueue("noop.job").latest_result(timeout=30) is not None

    turns: list[Callable[[], None]] = [our_turn, their_turn]
    workers = [start(on, code, "serve") for code in (OURS, THEIRS)]
    try:
        for turn in turns:
            turn()
        times: list[list[float]] = [[], []]
        for _ in range(tries // turn_of):
            for turn, found in zip(turns, times, strict=True):
                for _ in range(turn_of):
                    time.sleep(pause)
                    begun = time.perf_counter()
                    turn()
                    found.append((time.perf_counter() - begun) * 1000)
        return [sorted(found) for found in times]
    finally:
        for worker in workers:
            worker.terminate()
            worker.communicate()


def median(rounds: list[Round], which: int) -> float:
    return statistics.median(one[which] for one in rounds)


def show(what: str, ours: float, theirs: float) -> None:
    print(f"{what:50} flowtilla {ours:10.2f}   RQ {theirs:10.2f}   ratio {ours / theirs:6.2f}", flush=True)


if __name__ == "__main__":
    main()

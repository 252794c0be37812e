"""Seconds from the death of a worker to the next attempt of its run on another, all settings as they are by default.

    python benchmarks/recovery.py [--kills 100] [--lanes 3] [--mode processes]

Each lane has a queue and two workers of its own, and a run that keeps its cores busy; whoever has the run dies, in four
ways in turn: by kill -9, alone; with all that it started; with its process group; and by SIGSTOP, of all of them.
"""

import argparse
import os
import random
import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil

import noop
from fleet import Bench, bench, show
from flowtilla import Stage, Workflow

SPIN = Workflow("spin", [Stage(name="spin", target=noop.spin, type="parameterized", map_on="x")])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--lanes", type=int, default=3)
    parser.add_argument("--mode", choices=["processes", "threads"], default="processes")
    options = parser.parse_args()
    times: dict[str, list[float]] = defaultdict(list)
    with bench() as on, ThreadPoolExecutor(options.lanes) as pool:
        shares = [range(lane, options.kills, options.lanes) for lane in range(options.lanes)]
        for found in pool.map(lambda lane: work(on, lane, shares[lane], options.mode), range(options.lanes)):
            for way, seconds in found:
                times[way].append(seconds)
    for way in WAYS:
        tell(way, times[way])
    tell("all", [seconds for found in times.values() for seconds in found])


def work(on: Bench, lane: int, numbers: Sequence[int], mode: str) -> list[tuple[str, float]]:
    """Kills whoever has a lane's run, again and again; returns how, and the seconds until the next attempt."""
    queue, found = f"lane-{lane}", []
    executor = {"target": "local", "mode": mode, "cpus": 2}
    workers = {name: on.start_worker(executor, name, "-q", queue) for name in (f"{queue}-a", f"{queue}-b")}
    try:
        for number in numbers:
            run = on.client.submit(SPIN, {"x": list(range(100_000))}, queue=queue)
            while run.record.worker is None or run.state != "running":
                time.sleep(0.01)
            time.sleep(random.uniform(0, 3))
            holder = run.record.worker
            way = list(WAYS)[number % len(WAYS)]
            dead = psutil.Process(workers.pop(holder).pid)
            family = [dead, *dead.children(recursive=True)]
            WAYS[way](family)
            begun = time.perf_counter()
            while run.record.attempt == 1:
                time.sleep(0.01)
            found.append((way, time.perf_counter() - begun))
            run.cancel()
            _kill(family)
            run.wait(timeout=60)
            name = f"{queue}-{number}"
            workers[name] = on.start_worker(executor, name, "-q", queue)
    finally:
        for worker in workers.values():
            worker.terminate()
            worker.wait()
    return found


def _kill(family: Sequence[psutil.Process]) -> None:
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    family[0].wait()


def _kill_group(family: Sequence[psutil.Process]) -> None:
    os.killpg(family[0].pid, signal.SIGKILL)
    family[0].wait()


def _stop(family: Sequence[psutil.Process]) -> None:
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.suspend()


#: How a worker dies, given its process and those that it started.
WAYS: dict[str, Callable[[Sequence[psutil.Process]], None]] = {
    "alone": lambda family: _kill(family[:1]),
    "with children": _kill,
    "process group": _kill_group,
    "frozen": _stop,
}


def tell(way: str, times: list[float]) -> None:
    """Shows the percentiles of some times."""
    if len(times) > 1:
        at = statistics.quantiles(times, n=100, method="inclusive")
        show(
            f"{way}: {len(times)} times, p50",
            at[49],
            "s",
            f"p90 {at[89]:.1f}, p99 {at[98]:.1f}, longest {max(times):.1f} s",
        )


if __name__ == "__main__":
    main()

"""What a worker and its Redis keep of many runs: nothing that grows.

    python benchmarks/soak.py [threads|processes|ray|dask] [--runs 50000]

Runs are submitted in batches and kept for two seconds after their end. After each batch has gone, the worker's family
is measured, and the keys that are left in Redis; lines of a log stay for up to five minutes. The slope is that of the
last two thirds, after the warm-up.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence

import psutil

import noop
from fleet import Bench, bench, show
from flowtilla import Stage, Workflow

#: Runs in one batch.
BATCH = 1000

WORKFLOW = Workflow(
    "soak",
    [
        Stage(name="chatty", target=noop.chatty),
        Stage(name="same", target=noop.same, depends_on=["chatty"], type="parameterized"),
    ],
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("executor", nargs="?", default="threads", choices=["threads", "processes", "ray", "dask"])
    parser.add_argument("--runs", type=int, default=50_000)
    options = parser.parse_args()
    local = options.executor in ("threads", "processes")
    executor = {"target": "local", "mode": options.executor} if local else {"target": options.executor}
    with bench() as on, on.worker_on(executor | {"cpus": 2}) as worker:
        process = psutil.Process(worker.pid)
        samples = [batch(on, process, number) for number in range(max(3, options.runs // BATCH))]
        after = samples[len(samples) // 3 :]
        for name in samples[0]:
            values = [sample[name] for sample in after]
            growth = slope(values)
            show(f"{name}, first and last", values[0], "", f"{values[-1]:,.1f}; {growth:+.3f} per 1,000 runs")


def batch(on: Bench, process: psutil.Process, number: int) -> dict[str, float]:
    """Has some runs done and forgotten, and returns what is left of them."""
    runs = on.client.submit_many([{"workflow": WORKFLOW, "retention": "2s"}] * BATCH)
    for run in runs:
        run.wait(timeout=300)
    time.sleep(3)
    while (keys := on.redis.dbsize()) and any(on.redis.scan_iter("rq:job:*", count=1000)):
        time.sleep(0.1)
    family = [process, *process.children(recursive=True)]
    sample = {
        "worker's memory, MiB": process.memory_info().rss / 2**20,
        "family's memory, MiB": sum(one.memory_info().rss for one in family) / 2**20,
        "open files": float(process.num_fds()),
        "threads": float(process.num_threads()),
        "processes": float(len(family)),
        "keys in Redis": float(keys),
        "keys that do not expire": float(lasting(on)),
        "members of its registries": float(sum(on.redis.zcard(key) for key in on.redis.scan_iter(_type="zset"))),
    }
    print(
        f"{(number + 1) * BATCH:7,}  " + "  ".join(f"{name} {value:,.1f}" for name, value in sample.items()), flush=True
    )
    return sample


def lasting(on: Bench) -> int:
    """Returns how many keys have no end of their own."""
    pipeline = on.redis.pipeline(transaction=False)
    for key in on.redis.scan_iter(count=5000):
        pipeline.ttl(key)
    return pipeline.execute().count(-1)


def slope(values: Sequence[float]) -> float:
    """Returns by how much values grow from one to the next, as a straight line through them says."""
    return statistics.linear_regression(range(len(values)), values).slope * 1000 / BATCH


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    main()

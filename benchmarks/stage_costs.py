"""What the engine and the Local executor cost: maps, CPU work, big arrays, big workflows.

    python benchmarks/stage_costs.py [--repeats 5]

Each is measured on a worker of its own; what is done by hand is done in this process, in the same minutes.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import noop
from fleet import Bench, bench, show
from flowtilla import Stage, Workflow


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with bench() as on:
        for mode in ("threads", "processes"):
            with on.worker(mode):
                on.client.submit(MAP, {"n": 4}).result(timeout=60)
                maps(on, mode, repeats)
                arrays(on, mode, repeats)
                if mode == "processes":
                    cpu(on, repeats)
                else:
                    large(on)


MAP = Workflow(
    "map",
    [
        Stage(name="numbers", target=noop.numbers),
        Stage(name="same", target=noop.same, type="parameterized", depends_on=["numbers"]),
    ],
)
SPIN = Workflow(
    "spin",
    [
        Stage(name="numbers", target=noop.numbers),
        Stage(name="spin", target=noop.spin, type="parameterized", depends_on=["numbers"]),
    ],
)
ARRAY = Workflow(
    "array",
    [
        Stage(name="array", target=noop.array),
        Stage(name="plus_one", target=noop.plus_one, depends_on=["array"]),
        Stage(name="total", target=noop.total, depends_on=["plus_one"]),
    ],
)


def maps(on: Bench, mode: str, repeats: int) -> None:
    """A map over 1,000 no-op items, beside a task per item on a pool."""
    ours = median(repeats, lambda: on.client.submit(MAP, {"n": 1000}).result(timeout=60))
    with pool(mode) as by_hand:
        theirs = median(repeats, lambda: [one.result() for one in [by_hand.submit(noop.same, i) for i in range(1000)]])
    show(f"map over 1,000 no-ops, {mode}", ours * 1000, "ms", f"a task per item by hand {theirs * 1000:.1f} ms")


def arrays(on: Bench, mode: str, repeats: int) -> None:
    """64 MiB through three stages."""
    ours = median(repeats, lambda: on.client.submit(ARRAY, {"megabytes": 64}).result(timeout=60))
    with ThreadPoolExecutor(2) as threads:
        theirs = median(repeats, lambda: chain(threads))
    show(f"64 MiB through 3 stages, {mode}", ours * 1000, "ms", f"threads by hand {theirs * 1000:.1f} ms")


def chain(threads: ThreadPoolExecutor) -> float:
    made = threads.submit(noop.array, 64).result()
    return threads.submit(noop.total, threads.submit(noop.plus_one, made).result()).result()


def cpu(on: Bench, repeats: int) -> None:
    """64 items of 20 ms CPU work on two cores, beside half of what a loop takes."""
    ours = median(repeats, lambda: on.client.submit(SPIN, {"n": 64}).result(timeout=60))
    loop = median(repeats, lambda: [noop.spin(i) for i in range(64)])
    show("64 items of 20 ms CPU, processes", ours * 1000, "ms", f"half of a loop {loop * 500:.1f} ms")


def large(on: Bench) -> None:
    """A workflow of 10,000 stages, a map over 100,000 items, and the worker's memory for each."""
    layers = [[f"s{layer}-{i}" for i in range(100)] for layer in range(100)]
    stages = [
        Stage(
            name=name,
            target=noop.same if layer else noop.nothing,
            depends_on=layers[layer - 1][i : i + 1] if layer else (),
        )
        for layer, names in enumerate(layers)
        for i, name in enumerate(names)
    ]
    before = memory(on)
    took = seconds(lambda: on.client.submit(Workflow("large", stages)).wait(timeout=300))
    show("10,000 stages, a stage", took / 10, "ms", f"worker's memory {before:.0f} -> {memory(on):.0f} MiB")
    for items in (10_000, 100_000):
        took = seconds(lambda items=items: on.client.submit(MAP, {"n": items}).wait(timeout=300))
        show(f"map over {items:,} no-ops", took * 1000, "ms", f"worker's memory {memory(on):.0f} MiB")


def memory(on: Bench) -> float:
    pid = int(on.redis.hget("rq:worker:bench", "pid"))
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def pool(mode: str) -> Any:
    return ThreadPoolExecutor(2) if mode == "threads" else ProcessPoolExecutor(2, mp_context=get_context("spawn"))


def median(repeats: int, do: Callable[[], Any]) -> float:
    do()
    return statistics.median(seconds(do) for _ in range(repeats))


def seconds(do: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()

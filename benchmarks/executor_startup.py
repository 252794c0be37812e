"""What each executor costs to have: seconds until its first stage has run, and memory.

    python benchmarks/executor_startup.py [--repeats 3]

Each start is a fresh process; of Ray and Dask, it starts a cluster, and joins one that is there. Memory is resident, of
the worker's process and of all that it started beside it.
"""

import argparse
import json
import statistics
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import by_hand
from fleet import show

KINDS: dict[str, dict[str, object]] = {
    "local, threads": {"target": "local", "mode": "threads", "cpus": 2},
    "local, processes": {"target": "local", "mode": "processes", "cpus": 2},
    "dask": {"target": "dask", "cpus": 2},
    "ray": {"target": "ray", "cpus": 2},
}

#: Starts one executor, runs one call, and says what it took.
START = """
import asyncio, json, os, sys, time
from pathlib import Path
from flowtilla.context import Context
from flowtilla.settings import ExecutorSettings
from flowtilla_executors import Call
from flowtilla_executors.registry import create

def resident(pid):
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGESIZE") / 1024**2

def below(pid):
    tasks = Path(f"/proc/{pid}/task")
    children = [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]
    return children + [each for child in children for each in below(child)]

async def main():
    begun = time.perf_counter()
    executor = create(ExecutorSettings.model_validate(json.loads(sys.argv[1])))
    async with executor:
        started = time.perf_counter() - begun
        context = Context("run", "space", "flow", "stage", 1, executor.kind)
        outcome = await executor.outcome(executor.submit(Call("os.getpid", context)))
        assert outcome.failure is None, outcome.failure
        first = time.perf_counter() - begun
        beside = sum(resident(pid) for pid in below(os.getpid()))
        print(json.dumps([started, first, resident(os.getpid()), beside]))

asyncio.run(main())
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    for name, settings in KINDS.items():
        measure(name, settings, repeats)
    for kind, cluster in by_hand.KINDS.items():
        with closing(cluster()) as there:
            measure(f"{kind}, joined", {"target": kind, "cluster_address": there.address}, repeats)


def measure(name: str, settings: dict[str, object], repeats: int) -> None:
    """Starts an executor several times, and prints the medians."""
    seen = [start(settings) for _ in range(repeats)]
    started, first, own, beside = (statistics.median(column) for column in zip(*seen, strict=True))
    show(
        f"{name}: first stage done",
        first,
        "s",
        f"started {started:.2f} s; {own:.0f} MiB, beside it {beside:.0f} MiB",
    )


def start(settings: dict[str, object]) -> list[float]:
    """Returns what one start took."""
    command = [sys.executable, "-c", START, json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    return list(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()

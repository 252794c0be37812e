"""What flowtilla adds to Ray and Dask: the same DAGs by hand and as queued workflows, in one process, in one run.

    python benchmarks/cluster_dags.py [ray] [dask] [--rounds 60]

The worker, the client and whoever works by hand share this process, and a local cluster that is started by hand. By
hand has no queue to pass, no lease, no log and no record: all that is in our times. The rounds of both take turns.
"""

import argparse
import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import by_hand
import flowtilla
import noop
from by_hand import ByHand
from fleet import show
from flowtilla import Stage, Workflow
from flowtilla.settings import ExecutorSettings, Settings
from flowtilla_executors.registry import create
from flowtilla_worker.connections import Connections
from flowtilla_worker.dev.embedded import EmbeddedValkey
from flowtilla_worker.plan.catalog import Catalog
from flowtilla_worker.worker import Worker

CHAIN = Workflow(
    "chain",
    [
        Stage(name="one", target=noop.nothing),
        Stage(name="two", target=noop.same, depends_on=["one"]),
        Stage(name="three", target=noop.same, depends_on=["two"]),
    ],
)
MIDDLE = [f"middle-{number}" for number in range(by_hand.MIDDLE)]
DIAMOND = Workflow(
    "diamond",
    [
        Stage(name="first", target=noop.nothing),
        *[Stage(name=name, target=noop.same, depends_on=["first"]) for name in MIDDLE],
        Stage(name="last", target=noop.same, depends_on=MIDDLE),
    ],
)
MAP = Workflow(
    "map",
    [
        Stage(name="numbers", target=noop.numbers),
        Stage(name="same", target=noop.same, type="parameterized", depends_on=["numbers"]),
    ],
)
#: By hand the arguments of Ray's tasks are read-only, and Dask's tasks share them.
ARRAYS, READONLY_ARRAYS = [
    Workflow(
        name,
        [
            Stage(name="array", target=noop.array),
            Stage(name="plus_one", target=noop.plus_one, depends_on=["array"], readonly_arguments=readonly),
            Stage(name="total", target=noop.total, depends_on=["plus_one"], readonly_arguments=readonly),
        ],
    )
    for name, readonly in (("arrays", False), ("readonly_arrays", True))
]

#: Runs at once, where several are.
FLIGHT = 8


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=["ray", "dask"])
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    for kind in given.kinds:
        with fleet(kind) as (client, hand):
            measure(kind, client, hand, given.rounds)


def measure(kind: str, client: flowtilla.Client, hand: ByHand, rounds: int) -> None:
    for name, workflow, dag in (("chain of 3", CHAIN, by_hand.chain), ("diamond of 10", DIAMOND, by_hand.diamond)):

        def ours(workflow: Workflow = workflow) -> Any:
            return client.submit(workflow).result(timeout=60)

        def theirs(dag: Callable[[ByHand], Any] = dag) -> Any:
            return hand.wait([dag(hand)])

        def ours_at_once(workflow: Workflow = workflow) -> Any:
            return [run.result(timeout=60) for run in [client.submit(workflow) for _ in range(FLIGHT)]]

        def theirs_at_once(dag: Callable[[ByHand], Any] = dag) -> Any:
            return hand.wait([dag(hand) for _ in range(FLIGHT)])

        beside(f"{kind}: {name}", ours, theirs, rounds)
        beside(f"{kind}: {name}, {FLIGHT} in flight", ours_at_once, theirs_at_once, rounds // 4)
    beside(
        f"{kind}: map over 1,000 no-ops",
        lambda: client.submit(MAP, {"n": 1000}).result(timeout=60),
        lambda: hand.wait(by_hand.mapped(hand, 1000)),
        max(3, rounds // 12),
    )
    for how, workflow in (("a copy for each", ARRAYS), ("read-only", READONLY_ARRAYS)):

        def ours(workflow: Workflow = workflow) -> Any:
            return client.submit(workflow, {"megabytes": 64}).result(timeout=60)

        beside(
            f"{kind}: 64 MiB through 3 stages, {how}",
            ours,
            lambda: hand.wait([by_hand.arrays(hand, 64)]),
            max(5, rounds // 4),
            warm_up=50,  # until each of Ray's processes has touched each page of its store once, which is slow
        )


def beside(what: str, ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, warm_up: int = 3) -> None:
    """Measures both in turn after some rounds that do not count, and prints the medians and their ratio."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + warm_up):
        for taken, do in zip(times, (ours, theirs), strict=True):
            begun = time.perf_counter()
            do()
            if number >= warm_up:
                taken.append(time.perf_counter() - begun)
    mine, hand = map(statistics.median, times)
    show(what, mine * 1000, "ms", f"by hand {hand * 1000:.1f} ms, {mine / hand:.2f}x")


@contextmanager
def fleet(kind: str) -> Iterator[tuple[flowtilla.Client, ByHand]]:
    """Runs a worker in this process, on a real server, and gives a client of it and the same cluster by hand."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedValkey(Path(folder), persistent=True) as server,
        closing(by_hand.KINDS[kind]()) as hand,
    ):
        storage = {"base_path": f"{folder}/storage"}
        settings = Settings.model_validate({"redis": {"url": server.url}, "storage": storage})
        executor = create(ExecutorSettings.model_validate({"target": kind, "cluster_address": hand.address}))
        catalog = Catalog(allowed_targets=["noop.*"])
        worker = Worker(settings, executor, catalog, Connections(settings.redis), "bench")
        thread = threading.Thread(target=lambda: asyncio.run(worker.serve()))
        thread.start()
        try:
            with flowtilla.Client(settings=settings) as client:
                client.submit(CHAIN).result(timeout=60)
                yield client, hand
        finally:
            worker.stop()
            thread.join()


if __name__ == "__main__":
    main()

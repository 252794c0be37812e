"""What the executors alone add to Ray and Dask: the same DAGs by hand and through the seam, without queue and worker.

    python benchmarks/executor_dags.py [ray] [dask] [--rounds 40]

`cluster_dags.py` has the whole way. Here calls are submitted as the engine submits them, ahead of their parents, and
every outcome is waited for. The rounds of both take turns, on one cluster, in one process.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import by_hand
import noop
from fleet import show
from flowtilla.context import Context
from flowtilla.settings import ExecutorSettings
from flowtilla_executors import Call, Executor, Parent
from flowtilla_executors.registry import create

#: DAGs at once, where several are.
FLIGHT = 8


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=["ray", "dask"])
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    for kind in given.kinds:
        with closing(by_hand.KINDS[kind]()) as hand:
            asyncio.run(measure(kind, hand, given.rounds))


async def measure(kind: str, hand: by_hand.ByHand, rounds: int) -> None:
    settings = ExecutorSettings.model_validate({"target": kind, "cluster_address": hand.address})
    async with create(settings) as executor:

        async def measured(what: str, ours: Any, theirs: Any, count: int = 1, warm_up: int = 3) -> None:
            async def seam() -> None:
                await asyncio.gather(*[ours(executor) for _ in range(count)])

            async def alone() -> None:
                await asyncio.to_thread(lambda: hand.wait([theirs(hand) for _ in range(count)]))

            await beside(f"{kind}: {what}", seam, alone, rounds, warm_up)

        await measured("chain of 3", chain, by_hand.chain)
        await measured(f"chain of 3, {FLIGHT} in flight", chain, by_hand.chain, FLIGHT)
        await measured("diamond of 10", diamond, by_hand.diamond)
        await measured(f"diamond of 10, {FLIGHT} in flight", diamond, by_hand.diamond, FLIGHT)
        for how, readonly in (("a copy for each", False), ("read-only", True)):
            # Many, until each of Ray's processes has touched each page of its store once, which is slow.
            ours, theirs = partial(arrays, readonly), partial(by_hand.arrays, megabytes=64)
            await measured(f"64 MiB through 3 stages, {how}", ours, theirs, warm_up=50)


async def chain(executor: Executor[Any]) -> None:
    """Three calls, one after another."""
    one = executor.submit(call(noop.nothing))
    two = executor.submit(call(noop.same, 1), [one])
    await ended(executor, one, two, executor.submit(call(noop.same, 1), [two]))


async def diamond(executor: Executor[Any]) -> None:
    """One call, eight that take its value, one that takes theirs."""
    first = executor.submit(call(noop.nothing))
    middle = [executor.submit(call(noop.same, 1), [first]) for _ in range(by_hand.MIDDLE)]
    await ended(executor, first, *middle, executor.submit(call(noop.same, by_hand.MIDDLE), middle))


async def arrays(readonly: bool, executor: Executor[Any]) -> None:
    """An array of 64 MiB through three calls."""
    made = executor.submit(replace(call(noop.array), kwargs={"megabytes": 64}))
    more = executor.submit(replace(call(noop.plus_one, 1), readonly=readonly), [made])
    await ended(executor, made, more, executor.submit(replace(call(noop.total, 1), readonly=readonly), [more]))


def call(function: Callable[..., Any], parents: int = 0) -> Call:
    """Returns a call that takes the values of so many parents."""
    context = Context("run", "space", "flow", "stage", 1, "benchmark")
    args = tuple(Parent(number) for number in range(parents))
    return Call(f"noop.{function.__name__}", context, args, ahead=parents > 0)


async def ended(executor: Executor[Any], *handles: Any) -> None:
    """Waits for every outcome."""
    for handle in handles:
        outcome = await executor.outcome(handle)
        assert outcome.failure is None, outcome.failure


async def beside(
    what: str, ours: Callable[[], Awaitable[None]], theirs: Callable[[], Awaitable[None]], rounds: int, warm_up: int
) -> None:
    """Measures both in turn after some rounds that do not count, and prints the medians and their ratio."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + warm_up):
        for taken, do in zip(times, (ours, theirs), strict=True):
            begun = time.perf_counter()
            await do()
            if number >= warm_up:
                taken.append(time.perf_counter() - begun)
    mine, hand = map(statistics.median, times)
    show(what, mine * 1000, "ms", f"by hand {hand * 1000:.1f} ms, {mine / hand:.2f}x")


if __name__ == "__main__":
    main()

"""Measures the Local executor: calls a second, and a 64 MiB array through three calls, beside the same by hand.

Run it with `python benchmarks/local_executor.py`.
"""

import asyncio
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy

from flowtilla.context import Context
from flowtilla_executors import Call, Literal, Parent
from flowtilla_executors.local import LocalExecutor

CONTEXT = Context(run_id="bench", namespace="bench", workflow="bench", stage="bench", attempt=1, executor="local")
SIZE = 64 * 1024 * 1024
CALLS = {"threads": 20_000, "processes": 5_000}
IN_FLIGHT = 64
REPEATS = 7


async def calls_per_second(executor: LocalExecutor, count: int) -> float:
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            await executor.outcome(executor.submit(Call("operator.neg", CONTEXT, (Literal(number),))))

    began = time.perf_counter()
    await asyncio.gather(*[client() for _ in range(IN_FLIGHT)])
    return count / (time.perf_counter() - began)


async def through_three_calls(executor: LocalExecutor) -> float:
    """Returns the seconds from the first submit to the last outcome."""
    began = time.perf_counter()
    first = executor.submit(Call("numpy.ones", CONTEXT, (Literal(SIZE), Literal("u1"))))
    await executor.outcome(first)
    second = executor.submit(Call("numpy.negative", CONTEXT, (Parent(0),)), [first])
    await executor.outcome(second)
    last = await executor.outcome(executor.submit(Call("numpy.sum", CONTEXT, (Parent(0),)), [second]))
    assert last.failure is None, last.failure.traceback
    return time.perf_counter() - began


def by_hand() -> float:
    with ThreadPoolExecutor(2) as pool:
        began = time.perf_counter()
        array = pool.submit(numpy.ones, SIZE, "u1").result()
        array = pool.submit(numpy.negative, array).result()
        pool.submit(numpy.sum, array).result()
        return time.perf_counter() - began


async def measure(mode: str) -> None:
    async with LocalExecutor(cpus=2, mode=mode) as executor:
        await through_three_calls(executor)  # imports, and children that start
        rate = await calls_per_second(executor, CALLS[mode])
        array = statistics.median([await through_three_calls(executor) for _ in range(REPEATS)])
    print(f"{mode:>10}: {rate:8,.0f} calls/s with {IN_FLIGHT} in flight; 64 MiB through 3 calls {array * 1000:6.1f} ms")


if __name__ == "__main__":
    for mode in CALLS:
        asyncio.run(measure(mode))
    print(f"   by hand: 64 MiB through 3 calls {statistics.median(by_hand() for _ in range(REPEATS)) * 1000:6.1f} ms")

"""How a worker starts and idles, and what a long queue costs.

python benchmarks/worker_life.py [--queued 1000000]
"""

import argparse
import asyncio
import statistics
import time

import noop
from fleet import Bench, bench, show
from flowtilla import Stage, Workflow
from flowtilla_worker.claims import Claims
from flowtilla_worker.connections import Connections
from flowtilla_worker.writer import Writer

NOOP = Workflow("noop", [Stage(name="nothing", target=noop.nothing)])
FIVE = Workflow(
    "five",
    [Stage(name="a", target=noop.nothing)]
    + [Stage(name=f"b{i}", target=noop.same, depends_on=["a"], retries=2, timeout="90s") for i in range(4)],
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--queued", type=int, default=1_000_000)
    options = parser.parse_args()
    with bench() as on:
        starting(on)
    with bench() as on:
        depth(on, options.queued)


def starting(on: Bench) -> None:
    """Seconds until a worker listens, and its memory when idle."""
    times = []
    for number in range(5):
        begun = time.perf_counter()
        with on.worker("processes", f"start-{number}") as worker:
            times.append(time.perf_counter() - begun)
            on.client.submit(NOOP).result(timeout=30)
            with open(f"/proc/{worker.pid}/status") as status:  # noqa: PTH123
                idle = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))
    show("`flowtilla worker` listens after", statistics.median(times), "s")
    show("idle worker's memory, after one run", idle, "MiB")


def depth(on: Bench, queued: int) -> None:
    """Memory of a queued run, and what a claim costs on a short and on a long queue."""
    before = on.redis.info("memory")["used_memory"]
    on.client.submit_many([{"workflow": FIVE}] * 10_000)
    each = (on.redis.info("memory")["used_memory"] - before) / 10_000
    show("a queued run of five stages in Redis", each, "bytes")
    short = claim(on)
    for _ in range(queued // 10_000 - 1):
        on.client.submit_many([{"workflow": FIVE}] * 10_000)
    show("claim of 16 runs, 10,000 queued", short, "us")
    show(f"claim of 16 runs, {queued:,} queued", claim(on), "us")


def claim(on: Bench) -> float:
    """Returns the server's microseconds for a claim, the median of 50."""
    return asyncio.run(_claim(on))


async def _claim(on: Bench) -> float:
    redis = Connections(on.client.settings.redis).asyncio()
    writer = Writer(redis)
    claims = Claims(writer, "bench", on.client.settings)
    times = []
    for _ in range(50):
        on.redis.config_resetstat()
        assert len(await claims.take(16, idle=True)) == 16
        times.append(on.redis.info("commandstats")["cmdstat_evalsha"]["usec"])
    await writer.close()
    await redis.aclose()
    return statistics.median(times)


if __name__ == "__main__":
    main()

"""A frame through three stages on a cluster whose processes cannot hold it, with one command and no server.

python run.py --days 365
"""

import argparse
import os
import time
from pathlib import Path

import flowtilla
from flowtilla import config
from flowtilla_worker.testing import run_workflow

HERE = Path(__file__).parent

MB = 1e6


def main(days: int) -> None:
    """Runs the workflow once, and shows that its values needed more memory than its processes had."""
    os.chdir(HERE)  # where the configuration is, and the stages' module
    settings = config.load()
    compute = settings.services.compute
    print(f"{days} days of 1,000 meters, in worker processes of {compute.executor.options['memory']} each", flush=True)
    began = time.monotonic()
    run = run_workflow(
        "workflow.yaml",
        input={"days": days},
        executor=compute.executor.model_dump(),
        namespace=compute.default_namespace,
        storage=settings.storage.base_path,
    )
    show(run)
    print(f"{time.monotonic() - began:.1f} s in all")


def show(run: flowtilla.Run) -> None:
    """Prints what each stage's value took, what the processes had, and what came out."""
    result = run.result()
    for stage in ("make", "price", "total"):
        record = run.stages[stage]
        print(f"{stage:<6} {record.size / MB:>6,.0f} MB  {record.seconds:>5.1f} s")
    peaks = " and ".join(f"{peak / MB:,.0f} MB" for peak in result["peaks"].values())
    print(f"\nat their peaks the processes had {peaks} in memory")
    daily = run.artifacts["daily"]
    print(f"{result['kwh']:,} kWh cost {result['cost']:,.2f}; {result['rows']:,} daily rows are in {daily.path}")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--days", type=int, default=365, help="how many days, which is how many partitions")
    main(options.parse_args().days)

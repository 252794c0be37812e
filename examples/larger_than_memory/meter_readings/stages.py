"""The stages of workflow.yaml. Each takes and returns a Dask dataframe, whose partitions stay on the cluster."""

import resource
import sys
from typing import Any

import dask
import dask.dataframe as dd
import distributed

import flowtilla
from meter_readings import readings


@flowtilla.stage
def make(days: int = 365) -> dd.DataFrame:
    """Makes the readings, a partition for each day."""
    return dd.from_map(readings.day, range(days))


@flowtilla.stage
def price(frame: dd.DataFrame) -> dd.DataFrame:
    """Drops the readings that cannot be, and adds what each cost."""
    return frame.map_partitions(readings.priced)


@flowtilla.stage
def total(frame: dd.DataFrame) -> dd.DataFrame:
    """Adds up each day of each meter."""
    return frame.map_partitions(readings.daily)


@flowtilla.stage
def store(daily: dd.DataFrame) -> str:
    """Stores the table, a file for each partition, written where the partition is."""
    return flowtilla.artifacts.put("daily", daily).name


@flowtilla.stage
def report(daily: dd.DataFrame, stored: str) -> dict[str, Any]:
    """Returns the year in numbers, and the most memory that each worker process ever had."""
    kwh, cost = dask.compute(daily.kwh.sum(), daily.cost.sum())
    peaks = distributed.get_client().run(peak_memory)
    return {"kwh": round(float(kwh)), "cost": round(float(cost), 2), "rows": len(daily), "peaks": peaks}


def peak_memory() -> int:
    """Returns the most bytes that this process ever had in memory."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024

"""Stages that make Dask's collections, for the tests' worker processes; what they need is imported when they run."""

from typing import Any

import flowtilla


@flowtilla.stage
def frame() -> Any:
    """Returns 120 rows in 12 partitions."""
    import dask.dataframe
    import pandas

    return dask.dataframe.from_pandas(pandas.DataFrame({"n": range(120)}), npartitions=12)


@flowtilla.stage
def bag() -> Any:
    """Returns 24 numbers in 12 partitions."""
    import dask.bag

    return dask.bag.from_sequence(range(24), npartitions=12)


@flowtilla.stage
def doubled_rows(table: Any) -> Any:
    """Returns the rows with twice their number."""
    return table.assign(twice=table["n"] * 2)


@flowtilla.stage
def doubled_numbers(numbers: Any) -> Any:
    """Returns twice each number."""
    return numbers.map(lambda number: number * 2)


@flowtilla.stage
def stores(table: Any, numbers: Any) -> None:
    """Stores both."""
    flowtilla.artifacts.put("table", table)
    flowtilla.artifacts.put("numbers", numbers)

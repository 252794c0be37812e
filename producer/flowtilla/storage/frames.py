"""Tables: DataFrames of pandas and polars and Tables of pyarrow, each read back as what it was."""

import io
from importlib import import_module
from typing import Any

#: The classes that count as a table.
KINDS = frozenset({"pandas.DataFrame", "polars.DataFrame", "pyarrow.Table"})


def write_parquet(kind: str, value: Any, sink: io.RawIOBase) -> None:
    """Writes a table as parquet."""
    import pyarrow
    import pyarrow.parquet

    table = value
    if kind == "pandas.DataFrame":
        table = pyarrow.Table.from_pandas(value)
    elif kind == "polars.DataFrame":
        table = value.to_arrow()
    pyarrow.parquet.write_table(table, sink)


def read_parquet(kind: str, data: bytes) -> Any:
    """Returns the table that parquet holds, as the class it had."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    if kind == "pandas.DataFrame":
        return table.to_pandas()
    if kind == "polars.DataFrame":
        return import_module("polars").from_arrow(table)
    return table


def write_csv(kind: str, value: Any, sink: io.RawIOBase) -> None:
    """Writes a table as CSV; a pandas index is kept, as columns, unless it only counts the rows."""
    if kind == "pandas.DataFrame":
        counts = type(value.index).__name__ == "RangeIndex" and value.index.name is None
        value.to_csv(sink, index=not counts, lineterminator="\n")
    elif kind == "polars.DataFrame":
        value.write_csv(sink)
    else:
        import pyarrow.csv

        pyarrow.csv.write_csv(value, sink)


def read_csv(kind: str, data: bytes) -> Any:
    """Returns the table that CSV holds, as the class it had; its columns' types are guessed."""
    if kind == "pandas.DataFrame":
        return import_module("pandas").read_csv(io.BytesIO(data))
    if kind == "polars.DataFrame":
        return import_module("polars").read_csv(data)
    import pyarrow.csv

    return pyarrow.csv.read_csv(io.BytesIO(data))

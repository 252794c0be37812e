"""Stages that know of Dask."""

import os
import time
from pathlib import Path

import flowtilla
from flowtilla import artifacts


def frame(parts=12, rows=10):
    import dask.dataframe as dd
    import pandas as pd

    return dd.from_pandas(pd.DataFrame({"a": range(parts * rows), "s": "x"}), npartitions=parts)


def doubled(table):
    return table.assign(b=table["a"] * 2)


def total(table):
    return int(table["b"].sum().compute())


def bag():
    import dask.bag

    return dask.bag.from_sequence(range(24), npartitions=12).map(lambda x: x * 3)


def array():
    import dask.array

    return dask.array.arange(120, chunks=10).reshape(12, 10) + 1


def series():
    return frame()["a"]


def delayed():
    import dask

    return dask.delayed(sum)([1, 2, 3])


def several():
    return {"bag": bag(), "array": array(), "plain": 1}


def bag_of(x):
    import dask.bag

    return dask.bag.from_sequence([x, x], npartitions=2)


def computed(value):
    """Returns what a collection, or each of a mapping of some, is when it is computed."""
    import dask

    (found,) = dask.compute(value)
    if type(found) is dict:
        return {key: list(one) if hasattr(one, "__len__") else one for key, one in found.items()}
    return found.tolist() if hasattr(found, "tolist") else found.values.tolist() if hasattr(found, "values") else found


def kind(value):
    return type(value).__name__


def broken():
    import dask

    return dask.delayed(lambda: 1 / 0)()


def stored(value, name="table", **options):
    return artifacts.put(name, value, **options).format


def big(parts, megabytes):
    """Returns an array of so many parts, each of so many megabytes."""
    import dask.array

    size = megabytes * 1024 * 1024
    return dask.array.random.default_rng(7).integers(0, 255, parts * size, chunks=size, dtype="u1")


def incremented(values):
    return values + 1


def summed(values):
    return int(values.astype("u8").sum().compute())


def once_more(x):
    return x + 1


def trap(file):
    """Loops in a way that catches every ordinary exception, and says when it is over."""
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                time.sleep(0.01)
            except Exception:
                continue
    finally:
        Path(file).write_text("over")


def items_that_wait(x, folder):
    (Path(folder) / str(x)).touch()
    time.sleep(0.05)


def device():
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def shipped():
    import shipped_package
    from shipped_package import inner

    return [shipped_package.WORD, inner.WORD]


def die_while(file, other):
    """Waits for another call to be there, then ends its process."""
    Path(file).touch()
    end = time.monotonic() + 10
    while time.monotonic() < end and not Path(other).exists():
        time.sleep(0.01)
    os._exit(1)


def here():
    return flowtilla.context().executor

"""Stages that know of Dask."""

import os
import threading
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


def slow_bag():
    """Returns a bag whose parts take longer than the stage waits at a time."""
    import dask.bag

    return dask.bag.from_sequence(range(2), npartitions=2).map(lambda x: time.sleep(1) or x)


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


class Gated:
    """A zero that says by a file that it is being pickled, and waits for another one."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        Path(self.folder, "begun").touch()
        _wait_for(Path(self.folder, "gate"), 30)
        return int, ()


def stored_half(folder):
    """Stores a bag of two parts: one is being written when the other one fails."""
    import dask.bag

    return stored(dask.bag.from_sequence(range(2), npartitions=2).map(_half, folder), format="pickle")


def _half(x, folder):
    if x == 0:
        return Gated(folder)
    _wait_for(Path(folder, "begun"), 30)
    raise ValueError("the other half")


def stored_once_there(file, begun=None, seconds=30):
    """Stores a bag; one of its parts says by a file that it has begun, and waits for another one."""
    import dask.bag

    return stored(dask.bag.from_sequence(range(12), npartitions=12).map(_once_there, file, begun, seconds))


def _once_there(x, file, begun, seconds):
    if x == 6:
        if begun:
            Path(begun).touch()
        _wait_for(file, seconds)
    return x


def stored_at_last(folder):
    """Stores the same bag; the first time its own process dies in the middle of that."""
    begun, again = str(Path(folder) / "begun"), str(Path(folder) / "again")
    if Path(begun).exists():
        Path(again).touch()
    else:
        threading.Thread(target=_die_once_there, args=(begun,), daemon=True).start()
    return stored_once_there(again, begun, seconds=1)


def _die_once_there(file):
    _wait_for(file, 30)
    os._exit(1)


def _wait_for(file, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not Path(file).exists():
        time.sleep(0.01)


def stored(value, name="table", **options):
    return artifacts.put(name, value, **options).format


def big(parts, megabytes):
    """Returns an array of so many parts, each of so many megabytes."""
    import dask.array

    size = megabytes * 1024 * 1024
    return dask.array.random.default_rng(7).integers(0, 255, parts * size, chunks=size, dtype="u1")


def big_frame(parts, megabytes):
    """Returns a frame of so many parts, each of so many megabytes, that `doubled` and `total` take."""
    import dask.dataframe as dd

    return dd.from_map(_counted, range(parts), rows=megabytes * 1024 * 1024 // 8)


def _counted(number, rows):
    import numpy as np
    import pandas as pd

    return pd.DataFrame({"a": np.arange(rows) + number})


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


def tidies_in_finally(file):
    """Never looks whether it is to stop, and takes a moment to tidy up when it is stopped."""
    Path(file).touch()
    try:
        while True:
            time.sleep(0.01)
    finally:
        for _ in range(30):
            time.sleep(0.01)
        Path(f"{file}-tidied").touch()

"""What the benchmarks run."""

import time
from typing import Any

import flowtilla


@flowtilla.stage
def nothing() -> None:
    """Does nothing."""


def job() -> None:
    """Does nothing, for RQ."""


@flowtilla.stage
def chatty() -> list[int]:
    """Prints two lines."""
    print("one\ntwo")
    return [1, 2, 3]


@flowtilla.stage
def numbers(n: int) -> list[int]:
    """The first n numbers."""
    return list(range(n))


@flowtilla.stage
def same(x: Any, *_: Any) -> Any:
    """Gives back what it gets."""
    return x


@flowtilla.stage
def spin(x: int) -> int:
    """Keeps a core busy for 20 ms."""
    end = time.process_time() + 0.020
    while time.process_time() < end:
        pass
    return x


@flowtilla.stage
def array(megabytes: int) -> Any:
    """An array of so many MiB."""
    import numpy as np

    return np.ones(megabytes * 131_072)


@flowtilla.stage
def plus_one(x: Any) -> Any:
    """The array, one more."""
    return x + 1


@flowtilla.stage
def total(x: Any) -> float:
    """The array's sum."""
    return float(x.sum())

"""The benchmarks' DAGs written by hand against Ray and Dask, as somebody would who has no flowtilla."""

from collections.abc import Callable
from typing import Any, Protocol

import noop

#: What a diamond's middle stages are.
MIDDLE = 8


class ByHand(Protocol):
    """A back end in its own words."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """Begins a task; arguments may be what `submit` returned."""

    def wait(self, futures: list[Any]) -> list[Any]:
        """Returns the values."""


class Ray:
    """Ray, on the cluster that this process is connected to."""

    def __init__(self) -> None:
        import ray

        self._ray = ray
        self._tasks = {
            each: ray.remote(each) for each in (noop.nothing, noop.same, noop.array, noop.plus_one, noop.total)
        }

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._tasks[function].remote(*args)

    def wait(self, futures: list[Any]) -> list[Any]:
        return self._ray.get(futures)


class Dask:
    """Dask, with a client of its own on the same cluster."""

    def __init__(self, address: str) -> None:
        from distributed import Client

        self._client = Client(address)

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._client.submit(function, *args, pure=False)

    def wait(self, futures: list[Any]) -> list[Any]:
        return self._client.gather(futures)


def chain(on: ByHand) -> Any:
    """Three stages, one after another."""
    return on.submit(noop.same, on.submit(noop.same, on.submit(noop.nothing)))


def diamond(on: ByHand) -> Any:
    """One stage, eight that take its value, one that takes theirs."""
    first = on.submit(noop.nothing)
    return on.submit(noop.same, *[on.submit(noop.same, first) for _ in range(MIDDLE)])


def mapped(on: ByHand, count: int) -> list[Any]:
    """A task per item."""
    return [on.submit(noop.same, number) for number in range(count)]


def arrays(on: ByHand, megabytes: int) -> Any:
    """A big array through three stages."""
    return on.submit(noop.total, on.submit(noop.plus_one, on.submit(noop.array, megabytes)))

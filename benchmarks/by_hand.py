"""The benchmarks' DAGs written by hand against Ray and Dask, as somebody would who has no flowtilla."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import noop

HERE = Path(__file__).parent

#: What a diamond's middle stages are.
MIDDLE = 8


class ByHand(Protocol):
    """A back end in its own words, on a local cluster of two cpus.

    Args:
        address: where flowtilla finds the same cluster.
    """

    address: str

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """Begins a task; arguments may be what `submit` returned."""

    def wait(self, futures: list[Any]) -> list[Any]:
        """Returns the values."""

    def close(self) -> None:
        """Ends the cluster."""


class Ray:
    """Ray."""

    def __init__(self) -> None:
        import ray

        self._ray = ray
        ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": str(HERE)}})
        self.address = ray.get_runtime_context().gcs_address
        self._tasks = {
            each: ray.remote(each) for each in (noop.nothing, noop.same, noop.array, noop.plus_one, noop.total)
        }

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._tasks[function].remote(*args)

    def wait(self, futures: list[Any]) -> list[Any]:
        return self._ray.get(futures)

    def close(self) -> None:
        self._ray.shutdown()


class Dask:
    """Dask."""

    def __init__(self) -> None:
        from distributed import Client, LocalCluster

        self._cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        self._client = Client(self._cluster)
        self.address = self._cluster.scheduler_address

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._client.submit(function, *args, pure=False)

    def wait(self, futures: list[Any]) -> list[Any]:
        return self._client.gather(futures)

    def close(self) -> None:
        self._client.close()
        self._cluster.close()


KINDS: dict[str, Callable[[], ByHand]] = {"ray": Ray, "dask": Dask}


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

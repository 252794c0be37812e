"""The executors that the conformance suites run on, a table. Another back end is one row more."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dask_cluster import dask_cluster
from flowtilla.settings import ExecutorSettings
from flowtilla_executors import Executor
from flowtilla_executors.registry import create
from flowtilla_worker.testing import started_executor
from ray_cluster import ray_cluster

#: What every cluster of the suites has.
CPUS = 2
RESOURCES = {"wheels": 1, "doors": 1, "hamster_wheels": 2}


@dataclass(frozen=True)
class Backend:
    """One row.

    Args:
        kind: what the executor calls itself.
        settings: as in the configuration file, for two cpus.
        isolates: whether each stage has a process of its own, which can die alone.
        autopsies: whether it can say how a process died.
        force: how it stops a stage that does not stop by itself: `kill`, `interrupt` (its Python code), or None.
        cluster: starts a cluster with the back end's own command and gives the settings that reach it.
    """

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    isolates: bool = True
    autopsies: bool = True
    force: str | None = "kill"
    cluster: Callable[..., AbstractContextManager[dict[str, Any]]] | None = None

    def started(self, folder: Path, stack: ExitStack) -> "Backend":
        """Returns the row with its cluster started, until the stack is closed."""
        if self.cluster is None:
            return dataclasses.replace(self, settings=self.settings | {"cpus": CPUS})
        reach = stack.enter_context(self.cluster(folder, cpus=CPUS, resources=RESOURCES))
        return dataclasses.replace(self, settings=self.settings | reach)

    def make(self, **options: Any) -> Executor[Any]:
        """Returns an executor, not started."""
        if self.cluster is not None:
            options.pop("resources", None)  # it has all that there are
        return create(ExecutorSettings.model_validate({"target": self.kind} | self.settings | options))


BACKENDS = {
    "local-threads": Backend("local", {"mode": "threads"}, isolates=False, force=None),
    "local-processes": Backend("local", {"mode": "processes"}),
    "ray": Backend("ray", {"object_store_memory": "300MB"}, autopsies=False),
    "ray-address": Backend("ray", cluster=ray_cluster, autopsies=False),
    "dask": Backend("dask", force="interrupt"),
    "dask-address": Backend("dask", force="interrupt", cluster=dask_cluster),
}


class Started:
    """An executor that many tests share; started when first asked for.

    Args:
        backend: the row.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._stack = ExitStack()
        self._executor: Executor[Any] | None = None

    def executor(self) -> Executor[Any]:
        """Returns it, running."""
        if self._executor is None:
            self._executor = self._stack.enter_context(started_executor(self.backend.make(resources=RESOURCES)))
        return self._executor

    def close(self) -> None:
        """Closes it until it is asked for again."""
        self._executor = None
        self._stack.close()

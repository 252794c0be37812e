"""What a local cluster is made of, and what each of its worker processes has."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flowtilla_executors.dask.needs import CPU, GPU, MEMORY

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a local cluster is made of.

    Args:
        processes: how many worker processes; when they adapt, the most.
        threads: how many calls each runs at once.
        memory: bytes of each; a fair share of the machine's when None.
        resources: logical resources of all together, dealt out to the processes unit by unit.
        devices: GPUs, one for each of the first processes.
        least: how many of them are there when there is no work; None when their number is fixed.
        env_vars: of stages.
        dashboard: where Dask's dashboard listens, or None.
        quiet: whether the cluster's own messages go to a file that nobody reads unless it fails.
    """

    processes: int
    threads: int = 1
    memory: int | None = None
    resources: dict[str, float] = field(default_factory=dict)
    devices: Sequence[str] = ()
    least: int | None = None
    env_vars: dict[str, str] = field(default_factory=dict)
    dashboard: str | None = None
    quiet: bool = True

    def with_devices(self, devices: Sequence[str]) -> "Plan":
        """Returns the plan with devices that are there."""
        return replace(self, devices=tuple(devices))

    def workers(self) -> list[dict[str, Any]]:
        """Returns what each worker process has and counts, as a nanny takes it."""
        return [self._worker(number, share) for number, share in enumerate(_dealt(self.resources, self.processes))]

    def expected(self) -> list[dict[str, Any]]:
        """Returns the same as the scheduler will tell of the workers, once there are all; imports Dask."""
        from distributed.worker_memory import parse_memory_limit

        limit = parse_memory_limit(self._memory_limit, self.threads, logger=_log)
        return [worker | {"memory_limit": limit} for worker in self.workers()]

    @property
    def _memory_limit(self) -> int | str:
        return "auto" if self.memory is None else self.memory

    def _worker(self, number: int, resources: dict[str, float]) -> dict[str, Any]:
        environment = dict(self.env_vars)
        if self.threads > 1:
            resources[CPU] = self.threads
            if self.memory is not None:
                resources[MEMORY] = self.memory
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = "".join(self.devices[number : number + 1])
            if number < len(self.devices):
                resources[GPU] = 1
        return {
            "nthreads": self.threads,
            "memory_limit": self._memory_limit,
            "resources": resources,
            "env": environment,
        }


def _dealt(resources: dict[str, float], processes: int) -> list[dict[str, float]]:
    """Returns each process's share: whole units go round, so that what is rare is spread."""
    shares: list[dict[str, float]] = [{} for _ in range(processes)]
    turn = 0
    for name, amount in resources.items():
        for _ in range(math.floor(amount)):
            share = shares[turn % processes]
            share[name] = share.get(name, 0.0) + 1.0
            turn += 1
        if rest := amount - math.floor(amount):
            share = shares[turn % processes]
            share[name] = share.get(name, 0.0) + rest
            turn += 1
    return shares

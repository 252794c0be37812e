"""What the driver process is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

_STARTING, _CONNECTING, _INSTALLING = 120.0, 30.0, 600.0


@dataclass(frozen=True, slots=True)
class Options:
    """The executor's settings, as the driver process needs them.

    Args:
        address: where the cluster is; None starts one.
        folder: of a local cluster, for all that it writes; None for one that is there.
        cpus, memory, object_store_memory: of a local cluster; None is what Ray finds.
        gpus: the devices of a local cluster.
        resources: logical resources of a local cluster.
        env_vars: of the stages.
        runtime_env: what else the stages' processes get: `pip`, `working_dir`, `py_modules`.
        log_to_driver: whether what Ray's processes print is printed here too.
        auth_token_path: the file with the token of a cluster that is there; None looks in Ray's own places.
        dashboard: its host and port, or None.
        tasks_per_worker: calls that a process runs until another takes its place, or None.
        modules: imported once on every node.
    """

    address: str | None
    folder: Path | None
    cpus: int | None
    gpus: list[str]
    memory: int | None
    object_store_memory: int | None
    resources: dict[str, float]
    env_vars: dict[str, str]
    runtime_env: dict[str, Any]
    log_to_driver: bool
    auth_token_path: str | None
    dashboard: tuple[str, int | None] | None
    tasks_per_worker: int | None
    modules: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What messages call the cluster."""
        return f"the Ray cluster at {self.address}" if self.address else "the local Ray cluster"

    @property
    def patience(self) -> float:
        """Seconds until a start is given up: Ray on a busy machine takes long, and what it installs longer."""
        if "pip" in self.runtime_env:
            return _INSTALLING
        return _CONNECTING if self.address and not self.runtime_env else _STARTING


class Need(NamedTuple):
    """What a call takes of a node while it runs; `memory` in bytes."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0
    resources: tuple[tuple[str, float], ...] = ()

    @property
    def amounts(self) -> dict[str, float]:
        """The amounts by name, without the zeros."""
        named = {"cpus": self.cpus, "gpus": self.gpus, "memory": self.memory, **dict(self.resources)}
        return {name: amount for name, amount in named.items() if amount}


@dataclass(frozen=True, slots=True)
class Nodes:
    """What a cluster has, node by node: amounts by name."""

    totals: list[dict[str, float]]

    @property
    def sum(self) -> dict[str, float]:
        """All nodes together."""
        total: dict[str, float] = {}
        for node in self.totals:
            for name, amount in node.items():
                total[name] = total.get(name, 0.0) + amount
        return total

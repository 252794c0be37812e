"""The clusters that a fleet may share, which are killed in parts and wholly, and started again at their address."""

import secrets
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

import dask_cluster
from flowtilla_worker.dev.ports import free_port

from .faults import DASK, RAY, Fault, Incidents

#: Processors of a cluster.
CPUS = 3


class Cluster(Protocol):
    """A cluster that outlives its deaths."""

    kinds: dict[str, tuple[int, float, float]]
    executor: dict[str, Any]

    def do(self, fault: Fault) -> None:
        """Lets something go wrong with it, until it is right again."""

    def tend(self) -> None:
        """Nothing of it dies of itself."""


class Dask:
    """A scheduler and some workers of one thread each."""

    kinds = DASK

    def __init__(self, folder: Path, stack: ExitStack, incidents: Incidents) -> None:
        self._folder, self._stack, self._incidents = folder, stack, incidents
        self._port = free_port()
        self.executor = {"target": "dask", "cluster_address": f"tcp://127.0.0.1:{self._port}"}
        self._workers: list[subprocess.Popen[bytes]] = []
        self._start()

    def do(self, fault: Fault) -> None:
        """Kills a worker, or the scheduler and with it all workers."""
        began = time.time()
        if fault.kind == "kill worker":
            dask_cluster.end(self._workers.pop(0))
            time.sleep(fault.lasts)
            self._add_worker()
        else:
            dask_cluster.end(self._scheduler)
            time.sleep(fault.lasts)
            for worker in self._workers:
                dask_cluster.end(worker)
            self._workers.clear()
            self._start()
        self._incidents.note(began, "cluster", fault.kind)

    def tend(self) -> None:
        """Starts a worker again that has ended: Dask ends those that poisonous runs killed too often."""
        for worker in [worker for worker in self._workers if worker.poll() is not None]:
            self._workers.remove(worker)
            self._add_worker()

    def _start(self) -> None:
        options = ["--host", "127.0.0.1", "--port", str(self._port), "--no-dashboard"]
        self._scheduler = dask_cluster.start(self._folder, self._stack, "scheduler", *options)
        for _ in range(CPUS):
            self._add_worker()

    def _add_worker(self) -> None:
        name = f"worker-{secrets.token_hex(4)}"
        address = self.executor["cluster_address"]
        self._workers.append(dask_cluster.start_worker(self._folder, self._stack, address, name))


class Ray:
    """A head that does all the work."""

    kinds = RAY

    def __init__(self, folder: Path, stack: ExitStack, incidents: Incidents) -> None:
        import ray_cluster

        self._incidents = incidents
        self._cluster = stack.enter_context(ray_cluster.started(folder, cpus=CPUS))
        self.executor = {"target": "ray"} | self._cluster.settings

    def do(self, fault: Fault) -> None:
        """Kills all of it at once, or the part without which it cannot live."""
        began = time.time()
        if fault.kind == "kill":
            self._end()
        else:
            self._kill_part("raylet/raylet" if "raylet" in fault.kind else "gcs_server")
        time.sleep(fault.lasts)
        self._end()
        self._cluster.start_head(cpus=CPUS)
        self._incidents.note(began, "cluster", fault.kind)

    def tend(self) -> None:
        """Starts it again if it ended of itself."""
        if self._cluster.nodes[-1].poll() is not None:
            self._incidents.complain("the Ray cluster ended of itself")
            self._end()
            self._cluster.start_head(cpus=CPUS)

    def _end(self) -> None:
        self._cluster.end(self._cluster.nodes[-1].pid)

    def _kill_part(self, what: str) -> None:
        import psutil

        for process in psutil.Process(self._cluster.nodes[-1].pid).children(recursive=True):
            with suppress(psutil.Error):
                if what in " ".join(process.cmdline()[:1]):
                    process.send_signal(signal.SIGKILL)


#: The executors that a fleet can have; those of one cluster share it.
LOCAL = {
    "threads": ("threads", "threads", "threads"),
    "processes": ("processes", "processes", "processes"),
    "local": ("threads", "processes", "processes"),
}
CLUSTERS: dict[str, Any] = {"ray": Ray, "dask": Dask}

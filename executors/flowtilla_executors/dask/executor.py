"""The Dask executor: its settings, and the session that a start of it opens."""

import asyncio
import importlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtilla.errors import ConfigurationError
from flowtilla.units import Bytes
from flowtilla_executors.base import Executor, ExecutorInfo, LogSink
from flowtilla_executors.call import Call
from flowtilla_executors.dask.options import Options
from flowtilla_executors.dask.plan import Plan
from flowtilla_executors.gpus import granted
from flowtilla_executors.outcome import Outcome

if TYPE_CHECKING:
    from flowtilla.errors import ClusterLost
    from flowtilla_executors.dask.handle import Handle
    from flowtilla_executors.dask.session import Session


class DaskExecutor(Executor["Handle"]):
    """Runs calls on a Dask cluster: one of its own on this machine, or one that is there.

    Args:
        cluster_address: a scheduler's, `tcp://` or `tls://`; None starts a cluster on this machine.
        cpus: worker processes of the local cluster, each for one call at a time; as many as this process may use cpus
            when None.
        threads: calls that each of them runs at once, in threads.
        memory: bytes of each worker process, beyond which it spills to disk and at last is restarted; a fair share of
            the machine's when None.
        resources: logical resources by name, of all local worker processes together, and of `max` when they adapt.
        gpus: devices of this machine to use, each for a worker process of its own; at most `max` when they adapt.
        require_gpus: whether fewer devices than that are an error, or only worth a warning.
        adaptive: `min` and `max` number of local worker processes: as many as there is work for.
        env_vars: environment variables of the stages.
        py_modules: paths of `.py` files and package folders to ship to the workers.
        log_to_driver: whether what the local cluster says of itself goes to this process's stderr.
        dashboard: whether the local cluster has Dask's dashboard.
        dashboard_host, dashboard_port: where it listens.
        autoscales: whether the cluster makes workers when there is work: what none can run now then waits.
        tls_ca_file, tls_cert, tls_key: the certificate files for `tls://`.

    Raises:
        ConfigurationError: the settings contradict each other, or a number is not positive.
    """

    kind = "dask"
    submits_ahead = True
    prioritizes = True

    def __init__(
        self,
        cluster_address: str | None = None,
        cpus: int | None = None,
        threads: int = 1,
        memory: Bytes | None = None,
        resources: dict[str, float] | None = None,
        gpus: int = 0,
        require_gpus: bool = True,
        adaptive: dict[str, int] | None = None,
        env_vars: dict[str, str | int | float] | None = None,
        py_modules: Sequence[str] = (),
        log_to_driver: bool = False,
        dashboard: bool = False,
        dashboard_host: str = "127.0.0.1",
        dashboard_port: int = 8787,
        autoscales: bool = False,
        tls_ca_file: str | None = None,
        tls_cert: str | None = None,
        tls_key: str | None = None,
    ) -> None:
        local_only = {
            "cpus": cpus is not None,
            "threads": threads != 1,
            "memory": memory is not None,
            "resources": bool(resources),
            "gpus": gpus != 0,
            "require_gpus": not require_gpus,
            "adaptive": adaptive is not None,
            "log_to_driver": log_to_driver,
            "dashboard": dashboard,
            "dashboard_host": dashboard_host != "127.0.0.1",
            "dashboard_port": dashboard_port != 8787,
        }
        if cluster_address is not None and any(local_only.values()):
            named = ", ".join(f"`{name}`" for name, given in local_only.items() if given)
            raise ConfigurationError(
                f"the dask executor cannot set {named} of a cluster that is already there, which `cluster_address` "
                "names: leave one or the other out"
            )
        count = _cpus() if cpus is None else cpus
        if min(count, threads) < 1 or min([gpus, *(resources or {}).values()]) < 0:
            raise ConfigurationError(
                f"the dask executor cannot have cpus={count}, threads={threads}, gpus={gpus} and "
                f"resources={resources or {}}: give positive numbers"
            )
        bounds = _bounds(adaptive)
        if bounds is not None and cpus is not None:
            raise ConfigurationError(
                f"the dask executor cannot have both `cpus: {cpus}`, a number of worker processes, and `adaptive`, the "
                "least and the most: leave one out"
            )
        if bounds is not None and gpus > bounds[1]:
            raise ConfigurationError(
                f"the dask executor cannot use {gpus} devices in {bounds[1]} worker processes: lower `gpus`, or raise "
                "the `max` of `adaptive`"
            )
        variables = {name: str(value) for name, value in (env_vars or {}).items()}
        self._gpus, self._require_gpus = gpus, require_gpus
        self._options = Options(
            address=cluster_address,
            plan=Plan(
                processes=max(count, gpus) if bounds is None else bounds[1],
                threads=threads,
                memory=memory,
                resources=dict(resources or {}),
                least=None if bounds is None else bounds[0],
                env_vars=variables,
                dashboard=f"{dashboard_host}:{dashboard_port}" if dashboard else None,
                quiet=not log_to_driver,
            ),
            tls=_tls(cluster_address, {"tls_ca_file": tls_ca_file, "tls_cert": tls_cert, "tls_key": tls_key}),
            env_vars=variables,
            py_modules=tuple(py_modules),
            grows=autoscales or adaptive is not None,
        )
        self._session: Session | None = None

    async def _start(self, log_sink: LogSink, modules: Sequence[str]) -> None:
        # Dask takes a second to import, which must not hold up whatever else this process does.
        opening = await asyncio.to_thread(importlib.import_module, "flowtilla_executors.dask.opening")
        # What this machine lacks is said now, not when the executor is made.
        plan = self._options.plan.with_devices(granted(self._gpus, self._require_gpus))
        self._session = await opening.opened(replace(self._options, plan=plan), log_sink, modules)

    async def _close(self) -> None:
        session, self._session = self.session, None
        await session.close()

    @property
    def session(self) -> "Session":
        """The connection to the cluster."""
        assert self._session is not None, "not started"
        return self._session

    def info(self) -> ExecutorInfo:
        if self._session is None:
            plan, address = self._options.plan, self._options.address
            return ExecutorInfo(
                self.kind, address, 0.0 if address else float(plan.processes * plan.threads), plan.resources
            )
        return self._session.info()

    async def lost(self) -> "ClusterLost":
        return await self.session.lost()

    def _submit(self, call: Call, parents: Sequence["Handle"]) -> "Handle":
        return self.session.submit(call, parents)

    async def outcome(self, handle: "Handle") -> Outcome:
        return await handle.wait()

    async def fetch(self, handle: "Handle") -> Any:
        return await self.session.fetch(handle)

    async def cancel(self, handle: "Handle") -> None:
        await self.session.cancel(handle)


def _cpus() -> int:
    """Returns how many cpus this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bounds(adaptive: dict[str, int] | None) -> tuple[int, int] | None:
    if adaptive is None:
        return None
    if set(adaptive) != {"min", "max"} or not 0 <= adaptive["min"] <= adaptive["max"] or not adaptive["max"]:
        raise ConfigurationError(f"`adaptive` is {adaptive}: write it as {{min: 1, max: 8}}")
    return adaptive["min"], adaptive["max"]


def _tls(address: str | None, files: dict[str, str | None]) -> dict[str, str]:
    given = {name: file for name, file in files.items() if file is not None}
    if address is None or not address.startswith("tls://"):
        if given:
            raise ConfigurationError(f"`{'`, `'.join(given)}` need a `cluster_address` that begins with tls://")
        return {}
    if missing := [name for name in files if name not in given]:
        raise ConfigurationError(f"a tls:// address needs `{'`, `'.join(missing)}` too: paths of certificate files")
    if absent := [name for name, file in given.items() if not Path(file).is_file()]:
        raise ConfigurationError(f"`{absent[0]}` is {given[absent[0]]!r}, and there is no such file")
    return given

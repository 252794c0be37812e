"""The Ray executor: its settings, and the connection that a start of it opens."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flowtilla.errors import ClusterLost, ConfigurationError
from flowtilla.units import Bytes
from flowtilla_executors import resources as amounts
from flowtilla_executors.base import Executor, ExecutorInfo, LogSink
from flowtilla_executors.call import Call
from flowtilla_executors.gpus import devices, granted
from flowtilla_executors.outcome import Outcome
from flowtilla_executors.ray.connection import Connection
from flowtilla_executors.ray.handle import Handle
from flowtilla_executors.ray.options import Options


class RayExecutor(Executor[Handle]):
    """Runs calls as tasks of a Ray cluster.

    Args:
        cluster_address: None starts a cluster on this machine; `auto`, `host:port` or `ray://host:port` connects.
        cpus: how many the local cluster has; all when None.
        gpus: how many GPUs the local cluster has; all when None.
        require_gpus: whether fewer GPUs than that are an error, or only worth a warning.
        memory: what the local cluster gives to calls that ask for memory, such as "8GB".
        object_store_memory: what it gives to values, in shared memory.
        resources: its logical resources by name.
        log_to_driver: whether what Ray's own processes print is printed here too.
        env_vars: environment variables of the stages.
        pip: packages to install for the stages.
        working_dir: a folder to ship to the stages, their current one.
        py_modules: packages to ship to the stages.
        dashboard: whether the local cluster has Ray's dashboard.
        dashboard_host: where it listens.
        dashboard_port: on which port; None takes the first free one from 8265 on.
        auth_token_path: the file with the token of the cluster that it connects to; Ray's own places when None.
        tasks_per_worker: calls that one of Ray's processes runs until another takes its place; None is no limit.
        autoscales: whether the cluster grows on demand, so that a call that no node could meet waits.

    Raises:
        ConfigurationError: a local cluster's option is set, and an address too; or a number is not positive.
    """

    kind = "ray"
    submits_ahead = True

    def __init__(
        self,
        cluster_address: str | None = None,
        cpus: int | None = None,
        gpus: int | None = None,
        require_gpus: bool = True,
        memory: Bytes | None = None,
        object_store_memory: Bytes | None = None,
        resources: dict[str, float] | None = None,
        log_to_driver: bool = False,
        env_vars: dict[str, str | int | float] | None = None,
        pip: list[str] | None = None,
        working_dir: str | None = None,
        py_modules: list[str] | None = None,
        dashboard: bool = False,
        dashboard_host: str = "127.0.0.1",
        dashboard_port: int | None = None,
        auth_token_path: str | None = None,
        tasks_per_worker: int | None = None,
        autoscales: bool = False,
    ) -> None:
        sizes = {"memory": memory, "object_store_memory": object_store_memory}
        local = {
            "cpus": cpus is not None,
            "gpus": gpus is not None,
            "require_gpus": not require_gpus,
            **{name: size is not None for name, size in sizes.items()},
            "resources": resources is not None,
            "dashboard": dashboard,
            "dashboard_host": dashboard_host != "127.0.0.1",
            "dashboard_port": dashboard_port is not None,
        }
        if cluster_address is not None and (wrong := [name for name, given in local.items() if given]):
            raise ConfigurationError(
                f"the Ray executor connects to the cluster at {cluster_address!r}, and {', '.join(wrong)} can be set "
                "only for a cluster that it starts: remove either"
            )
        if cluster_address is None and auth_token_path is not None:
            raise ConfigurationError(
                "the Ray executor starts a cluster with a token of its own, and `auth_token_path` can be set only for "
                "one that is there: remove it, or set `cluster_address`"
            )
        numbers = {"cpus": cpus, "tasks_per_worker": tasks_per_worker, **sizes, **(resources or {})}
        bad = {name: number for name, number in numbers.items() if number is not None and number <= 0}
        if gpus is not None and gpus < 0:
            bad["gpus"] = gpus
        if bad:
            raise ConfigurationError(f"the Ray executor cannot have {amounts.shown(bad)}: give positive numbers")
        self._gpus, self._require_gpus = gpus, require_gpus
        self._autoscales = autoscales
        shipped = {"pip": pip, "working_dir": working_dir, "py_modules": py_modules}
        self._options = Options(
            address=cluster_address,
            folder=None,
            cpus=cpus,
            gpus=[],
            memory=memory,
            object_store_memory=object_store_memory,
            resources=resources or {},
            env_vars={name: str(value) for name, value in (env_vars or {}).items()},
            runtime_env={name: value for name, value in shipped.items() if value},
            log_to_driver=log_to_driver,
            auth_token_path=auth_token_path,
            dashboard=(dashboard_host, dashboard_port) if dashboard else None,
            tasks_per_worker=tasks_per_worker,
        )
        self._opened: Connection | None = None

    async def _start(self, log_sink: LogSink, modules: Sequence[str]) -> None:
        options = replace(self._options, modules=tuple(modules))
        if options.address is None:
            gpus = devices() if self._gpus is None else granted(self._gpus, self._require_gpus)
            options = replace(options, gpus=gpus)
        connection = Connection(options, self._autoscales, log_sink)
        await connection.open()
        self._opened = connection

    async def _close(self) -> None:
        await self._connection.close()

    @property
    def _connection(self) -> Connection:
        assert self._opened is not None, "not started"
        return self._opened

    def info(self) -> ExecutorInfo:
        if self._opened is None:
            return ExecutorInfo(
                self.kind, self._options.address, float(self._options.cpus or 0), self._options.resources
            )
        return self._opened.info()

    async def lost(self) -> ClusterLost:
        return await self._connection.lost()

    def _submit(self, call: Call, parents: Sequence[Handle]) -> Handle:
        return self._connection.submit(call, parents)

    async def outcome(self, handle: Handle) -> Outcome:
        return await handle.wait()

    async def fetch(self, handle: Handle) -> Any:
        return await self._connection.fetch(handle)

    async def cancel(self, handle: Handle) -> None:
        await self._connection.cancel(handle)

"""Opens a session on a Dask cluster: one that is there, or one that is started."""

import asyncio
import contextlib
from collections.abc import Sequence

from distributed import Client

from flowtilla.errors import ClusterUnreachable
from flowtilla_executors.base import LogSink
from flowtilla_executors.dask import connection, shipping
from flowtilla_executors.dask.health import Health
from flowtilla_executors.dask.local import LocalCluster
from flowtilla_executors.dask.options import Options
from flowtilla_executors.dask.session import Session

#: Seconds that leaving a cluster may take.
_LEAVE = 3.0


async def opened(options: Options, log_sink: LogSink, modules: Sequence[str]) -> Session:
    """Returns a session on the cluster that the options name, or on one that it starts.

    Raises:
        ExecutorError: a local cluster does not start.
        ClusterUnreachable: the cluster does not answer, or has no workers.
        ClusterMismatch: it has other versions than this process, or lacks a module.
    """
    files = shipping.packed(options.py_modules)
    async with contextlib.AsyncExitStack() as stack:
        if options.address is not None:
            client, health = await _joined(options, options.address, None, modules, files, stack)
            return Session(options, client, health, log_sink, stack.pop_all())
        cluster = LocalCluster(options.plan)
        stack.push_async_callback(asyncio.to_thread, cluster.close)
        address = await asyncio.to_thread(cluster.start)
        try:
            client, health = await _joined(options, address, cluster, modules, files, stack)
        except ClusterUnreachable as error:
            raise cluster.unstarted(error) from error
        return Session(options, client, health, log_sink, stack.pop_all(), cluster.dashboard)


async def _joined(
    options: Options,
    address: str,
    cluster: LocalCluster | None,
    modules: Sequence[str],
    files: dict[str, bytes],
    stack: contextlib.AsyncExitStack,
) -> tuple[Client, Health]:
    """Connects to a cluster, and makes it ready for stages."""
    name = f"the Dask cluster at {address}"
    client = await connection.connect(address, options.tls)
    stack.push_async_callback(_leave, client)
    health = Health(client, name, cluster.death if cluster else lambda: None, options.grows)
    if cluster is not None:
        health.know(options.plan.expected())
    async with connection.answering(name):
        # A local cluster that grows begins with a worker.
        patient = cluster is None and options.grows
        await connection.prepare(client, name, modules, options.env_vars, files, patient)
        await health.look()
        if cluster is not None and options.grows:
            await client.scheduler.flowtilla_grow()
    if not health.workers and not options.grows:
        # Those it had were gone, and it has found out only now. What they offered nobody knows.
        raise connection.without_workers(client, name)
    return client, health


async def _leave(client: Client) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_LEAVE):
            await client.close()

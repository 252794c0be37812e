"""Connects to a Dask cluster and makes sure that it can run what this process will send it."""

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from distributed import Client, Security

from flowtilla.errors import ClusterUnreachable
from flowtilla_executors import handshake
from flowtilla_executors.dask.client import OneLifeClient, hush
from flowtilla_executors.dask.deaths import OnNanny
from flowtilla_executors.dask.plugins import OnScheduler, OnWorker, Shipped, forget

#: What must be the same on both sides.
PACKAGES = ("dask", "distributed", *handshake.PACKAGES)

#: Seconds to wait for the scheduler, and for the first worker of a cluster that has just been started.
_CONNECT, _FIRST_WORKER = 8.0, 5.0

#: Seconds that it may take until a cluster is ready for stages.
_PREPARE = 60.0

#: Seconds for which submitted calls are gathered before they are sent.
_GATHER = 0.001


async def connect(address: str, tls: Mapping[str, str]) -> Client:
    """Returns a client of the scheduler.

    Args:
        address: its address.
        tls: the certificate files by the names of our settings; none for `tcp://`.

    Raises:
        ClusterUnreachable: it cannot be reached.
    """
    security = (
        Security(tls_ca_file=tls["tls_ca_file"], tls_client_cert=tls["tls_cert"], tls_client_key=tls["tls_key"])
        if tls
        else None
    )
    with warnings.catch_warnings():
        # Of versions that differ; `prepare` says it better.
        warnings.simplefilter("ignore")
        client = OneLifeClient(
            address, asynchronous=True, set_as_default=False, timeout=_CONNECT, security=security, name="flowtilla"
        )
        try:
            await client
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise ClusterUnreachable(
                f"the Dask scheduler at {address} cannot be reached: {type(error).__name__}: {error}. Check that it "
                "runs, that `cluster_address` is the address it prints at its start, that no firewall is between, and "
                "for tls:// that `tls_ca_file`, `tls_cert` and `tls_key` are those of the cluster"
            ) from error
    # Dask would gather for 10 ms what is submitted.
    client.scheduler_comm.interval = _GATHER
    hush(client.scheduler_comm.comm)
    return client


@contextlib.asynccontextmanager
async def answering(name: str) -> AsyncIterator[None]:
    """Names what goes wrong when a cluster is asked for something, and bounds how long it may take.

    Args:
        name: how messages call it.

    Raises:
        ClusterUnreachable: it does not answer, or the connection ended.
    """
    try:
        async with asyncio.timeout(_PREPARE):
            yield
    except TimeoutError as error:
        raise ClusterUnreachable(
            f"{name} was not ready for stages in time: a worker process may hang, or a module of the "
            "configuration's `modules` while it is imported there. Look into the workers' logs, and end what hangs"
        ) from error
    except OSError as error:
        raise ClusterUnreachable(
            f"{name} broke off while it was made ready for stages: {error}. A worker process may have died, or its "
            "scheduler: look into their logs"
        ) from error


async def prepare(
    client: Client, name: str, modules: Sequence[str], env_vars: dict[str, str], files: dict[str, bytes], patient: bool
) -> None:
    """Makes a cluster ready for stages, or refuses it.

    Args:
        client: connected to it.
        name: how messages call it.
        modules: imported in every worker process.
        env_vars: set in every worker process.
        files: modules to ship to them, as `shipping.packed` returns them.
        patient: whether the cluster may do without workers.

    Raises:
        ClusterUnreachable: it has no workers.
        ClusterMismatch: its versions are not ours, or it lacks a module.
    """
    if not patient:
        await _first_worker(client, name)
    versions = await client.get_versions(packages=list(PACKAGES))
    for address, found in {client.scheduler.address: versions["scheduler"], **versions["workers"]}.items():
        _compare(found["packages"], name, address.partition("://")[2])
    await client.register_plugin(OnScheduler())
    await client.register_plugin(OnNanny())
    if files:
        await _ship(client, Shipped(files))
    await client.register_plugin(OnWorker(modules, env_vars))
    looks = await client.run(handshake.portable_look(), PACKAGES, list(modules))
    for found in looks.values():
        handshake.check(found, PACKAGES, name)


async def _ship(client: Client, shipped: Shipped) -> None:
    """Brings modules to all workers; to one that joins later, those that were shipped last come last."""
    await client.run_on_scheduler(forget, shipped.name)
    await client.register_plugin(shipped)


async def _first_worker(client: Client, name: str) -> None:
    try:
        async with asyncio.timeout(_FIRST_WORKER):
            while not (await client.scheduler.identity(n_workers=-1))["workers"]:
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise without_workers(client, name) from None


def without_workers(client: Client, name: str) -> ClusterUnreachable:
    """Returns the error of a cluster that has no workers, and must not do without."""
    return ClusterUnreachable(
        f"{name} has no workers: start some with `dask worker {client.scheduler.address}`, or set "
        "`autoscales: true` if they come when there is work"
    )


def _compare(packages: Mapping[str, Any], name: str, host: str) -> None:
    """Compares versions without sending any code, which another Python could not read."""
    versions = {package: packages.get(package) for package in PACKAGES}
    python = str(packages["python"])
    versions["python"] = ".".join(python.strip("()").replace(" ", "").replace("'", "").replace(",", ".").split(".")[:2])
    found = {"host": host, "versions": versions, "broken": {}}
    handshake.check(found, PACKAGES, name)

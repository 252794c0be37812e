"""Starts a worker in this process."""

import asyncio
import logging
import os

from flowtilla.settings import Settings
from flowtilla.steps import drive, pipeline
from flowtilla_executors.registry import create
from flowtilla_worker.connections import Connections
from flowtilla_worker.logsetup import configure_logging
from flowtilla_worker.plan.catalog import Catalog
from flowtilla_worker.worker import Worker


def run_worker(settings: Settings, name: str | None = None, burst: bool = False) -> int:
    """Runs a worker until it is told to stop.

    Args:
        settings: everything it needs to know.
        name: its name in the fleet; made from host and process when None.
        burst: stop when the queues are empty.

    Returns:
        The exit code: 0, or 1 when a run could neither be ended nor handed back.

    Raises:
        ConfigurationError: a module or the executor is not as configured.
        ExecutorError: the executor cannot be started, and trying again would not help.
        QueueUnavailable: Redis cannot be reached.
        WorkerNameTaken: a live worker has the name.
    """
    configure_logging(settings.logging)
    own = settings.services.worker
    connections = Connections(settings.redis)
    # Now, and with a clear error, rather than in the middle of starting.
    drive(pipeline(lambda redis: redis.ping()), connections.blocking(patience=own.lease))
    catalog = Catalog(own.modules, own.allowed_targets)
    catalog.load_modules()
    worker = Worker(settings, create(settings.services.compute.executor), catalog, connections, name)
    return asyncio.run(_serve(worker, burst))


async def _serve(worker: Worker, burst: bool) -> int:
    code = 0 if await worker.serve(burst) else 1
    if worker.stuck:
        # Nothing stops a thread in which a cluster is being started, and Python would wait for it.
        logging.shutdown()
        os._exit(code)
    return code

"""Starts a worker in this process."""

import asyncio
import atexit
import multiprocessing.util
import os

from redis.exceptions import RedisError

from flowtilla.settings import Settings
from flowtilla.steps import drive, pipeline, unavailable
from flowtilla_executors.registry import create
from flowtilla_worker.checks import check
from flowtilla_worker.connections import Connections
from flowtilla_worker.deputy import Deputy
from flowtilla_worker.logsetup import configure_logging
from flowtilla_worker.plan.catalog import Catalog
from flowtilla_worker.stopping import end_process
from flowtilla_worker.supervisor import DRAINED
from flowtilla_worker.worker import Worker


def run_worker(settings: Settings, name: str | None = None, burst: bool = False, supervised: bool = False) -> int:
    """Runs a worker until it is told to stop.

    Args:
        settings: everything it needs to know.
        name: its name in the fleet; made from host and process when None.
        burst: stop when the queues are empty.
        supervised: whether a supervisor is to know by the exit code that the worker was drained.

    Returns:
        The exit code: 0; 1 when a run could neither be ended nor handed back; `DRAINED` when a supervisor is to know.

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
    with connections.blocking(patience=own.lease) as redis:
        drive(pipeline(lambda pipe: pipe.ping()), redis)
        check(redis)
    catalog = Catalog(own.modules, own.allowed_targets)
    catalog.load_modules()
    executor = create(settings.services.compute.executor)
    deputy = Deputy(settings) if executor.shares_interpreter else None
    worker = Worker(settings, executor, catalog, connections, name, end_process, deputy)
    try:
        return asyncio.run(_serve(worker, burst, supervised))
    except RedisError as error:
        # It answers, and refuses that a worker is registered.
        raise unavailable(worker.connection, error) from error


async def _serve(worker: Worker, burst: bool, supervised: bool) -> int:
    code = 0 if await worker.serve(burst) else 1
    if supervised and worker.drained:
        code = DRAINED
    if worker.pressed:
        # Nothing stops a thread in which a cluster is being started, say, and Python would wait for it; and then take
        # itself apart at leisure. Child processes, for which multiprocessing would wait, end when this one is gone.
        atexit.unregister(multiprocessing.util._exit_function)  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        os._exit(code)
    return code

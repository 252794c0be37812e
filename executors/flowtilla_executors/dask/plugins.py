"""What flowtilla adds to the servers of a Dask cluster, to those that join later too."""

import asyncio
import hashlib
import logging
import os
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed import Scheduler, Worker
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin

from flowtilla import objects
from flowtilla_executors import capture
from flowtilla_executors.dask import shipping, stop
from flowtilla_executors.dask.channel import TOPICS, send_end
from flowtilla_executors.dask.deaths import Ledger
from flowtilla_executors.dask.memory import SchedulerMemory, WorkerMemory
from flowtilla_executors.handshake import look

_log = logging.getLogger(__name__)

#: Seconds for which a worker process that is new to us waits until its nanny has heard of its start.
_YOUNG = 0.3

_prepared = False


class OnScheduler(SchedulerPlugin):
    """Forgets the events of stages as soon as they are passed on, and holds what `flowtilla.objects` keeps."""

    name = "flowtilla"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        scheduler.handlers["flowtilla_memory"] = SchedulerMemory().handle

    def log_event(self, topic: str, msg: Any) -> None:
        if topic.startswith(TOPICS):
            self._scheduler._broker.truncate(topic)


class Shipped(WorkerPlugin):
    """Brings modules to a worker process.

    Args:
        files: as `shipping.packed` returns them.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files
        # Another version of the same modules takes its place.
        self.name = "flowtilla-modules-" + ",".join(sorted(shipping.names(files)))

    def setup(self, worker: Worker) -> None:
        shipping.unpack(self._files, Path(worker.local_directory))


class OnWorker(WorkerPlugin):
    """Makes a worker process ready for stages, and stops those that the scheduler takes back.

    Args:
        modules: imported at once.
        env_vars: set before that.
    """

    def __init__(self, modules: Sequence[str], env_vars: dict[str, str]) -> None:
        self._modules = list(modules)
        self._env_vars = env_vars
        # The same wish of many flowtilla processes is one plugin, and another wish does not undo it.
        self.name = "flowtilla-" + hashlib.sha256(pickle.dumps((modules, env_vars))).hexdigest()[:16]

    async def setup(self, worker: Worker) -> None:
        self._worker = worker
        # On a worker that joins later, whatever is shipped comes before it is imported.
        await asyncio.sleep(0)
        os.environ.update(self._env_vars)
        _prepare(worker)
        for module, why in look((), self._modules)["broken"].items():
            _log.error("this worker cannot import %s: %s; stages that need it will fail here", module, why)

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        if finish == "memory":
            send_end(self._worker, key)
        # Whom the scheduler takes a running task from is told so: nobody wants its value any more.
        if finish == "released" and start in ("executing", "long-running"):
            self._stop(key)

    def _stop(self, key: str) -> None:
        if stop.stop(key):
            self._worker.loop.call_later(stop.LOOK, self._stop, key)


def forget(name: str, dask_scheduler: Scheduler) -> None:
    """Forgets a plugin for workers that join later, on the scheduler: registered anew, it comes last."""
    dask_scheduler.worker_plugins.pop(name, None)


def _prepare(worker: Worker) -> None:
    global _prepared
    if not _prepared:
        _prepared = True
        logging.getLogger().setLevel(logging.INFO)
        capture.install()
        objects.use_memory(WorkerMemory(worker))
        if worker.nanny is not None:
            stop.ledger = Ledger(worker)
            stop.settled = time.monotonic() + _YOUNG

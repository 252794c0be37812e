"""The process that holds a local cluster: its scheduler, and the nannies of its worker processes.

It leads a session of its own, so that signals for the flowtilla process pass it by, and takes everything that stages
started with it when it ends: at the latest when the flowtilla process does.
"""

import asyncio
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

#: What the process runs: the first line of its standard input says how, and its end ends the process.
START = (
    "import json, sys; plan = json.loads(sys.stdin.readline()); sys.path[:] = plan['path']; "
    "from flowtilla_executors.dask.head import main; main(plan)"
)

#: Seconds until a nanny that gave up is replaced.
_PAUSE = 0.5

#: Worker processes in a row that did not start, after which none will.
_HOPELESS = 3


class TooLittleMemory(Exception):
    """Raised when Dask would end a worker process again and again, or give it no work, before it has any."""


def main(plan: dict[str, Any]) -> None:
    """Runs the cluster until the flowtilla process closes our standard input, or is gone.

    Args:
        plan: `workers`: the options of each worker process; `least`: how many are there when there is no work, None
            when all always are; `scheduler`: its options; `config`: Dask's; `environment`: for all; `directory`: where
            files may be; `report`: the descriptor to write to where it is, or why it is not.
    """
    process: Any = multiprocessing.current_process()
    process._config["semprefix"] = f"/{Path(plan['directory']).name}"
    threading.Thread(target=_follow, args=(plan["directory"],), name="flowtilla-follow", daemon=True).start()
    os.environ.update(plan["environment"])
    try:
        asyncio.run(_serve(plan))
    except TooLittleMemory as error:
        _report(plan["report"], refused=str(error))


async def _serve(plan: dict[str, Any]) -> None:
    import dask
    from distributed import Scheduler, SpecCluster
    from distributed.scheduler import DEFAULT_EXTENSIONS

    from flowtilla_executors.dask.growing import Growing

    dask.config.set(plan["config"])
    # Spans keep a note of every task, and of every busy period, for ever. The worker processes go without them too.
    extensions = {name: extension for name, extension in DEFAULT_EXTENSIONS.items() if name != "spans"}
    options = {
        "scheduler": {"cls": Scheduler, "options": plan["scheduler"] | {"extensions": extensions}},
        "asynchronous": True,
        "silence_logs": logging.WARNING,
    }
    if plan["least"] is None:
        async with SpecCluster(**options) as cluster:
            kept = await _filled(cluster, plan["workers"])
            _report(plan["report"], **_addresses(cluster))
            await asyncio.wait(kept)
    else:
        async with Growing(plan["workers"], plan["least"], **options) as growing:
            for nanny in growing.workers.values():
                _check_room(nanny)
            # Called by the flowtilla process once it has asked the first worker process all it wants to know.
            growing.scheduler.handlers["flowtilla_grow"] = growing.grow
            _report(plan["report"], **_addresses(growing))
            await asyncio.Event().wait()


def _report(descriptor: int, **what: Any) -> None:
    with os.fdopen(descriptor, "w") as report:
        json.dump(what, report)


def _addresses(cluster: Any) -> dict[str, Any]:
    # The port that was asked for may be taken.
    return {"address": cluster.scheduler_address, "dashboard_port": cluster.scheduler.http_server.port}


async def _filled(cluster: Any, workers: list[dict[str, Any]]) -> list[asyncio.Task[None]]:
    """Waits until all worker processes are there, and returns what keeps each of them."""
    there = [asyncio.Event() for _ in workers]
    address = cluster.scheduler_address
    kept = [asyncio.create_task(_keep(address, *one)) for one in zip(workers, there, strict=True)]
    ends: list[asyncio.Future[Any]] = [asyncio.gather(*(one.wait() for one in there)), *kept]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for failed in filter(asyncio.Task.done, kept):
        failed.result()
    return kept


async def _keep(address: str, options: dict[str, Any], there: asyncio.Event) -> None:
    """Keeps one worker process there: a nanny restarts one that dies, but gives up on one that dies young.

    Args:
        address: the scheduler's.
        options: of the worker process.
        there: to set once it was there: then it could start, and may again.

    Raises:
        TooLittleMemory: it has less than it takes with nothing to do.
        Exception: several in a row did not start, and it was never there.
    """
    from distributed import Nanny

    failures = 0
    while True:
        try:
            async with Nanny(address, **options) as nanny:
                _check_room(nanny)
                there.set()
                failures = 0
                await nanny.finished()
        except Exception as error:
            failures += 1
            if not there.is_set() and (failures == _HOPELESS or isinstance(error, TooLittleMemory)):
                raise
            logging.getLogger(__name__).exception("a worker process did not start; another is tried")
        await asyncio.sleep(_PAUSE)


def _check_room(nanny: Any) -> None:
    """Refuses a worker process that has less memory than it takes with nothing to do."""
    import dask
    import psutil

    limit, taken = nanny.memory_manager.memory_limit, psutil.Process(nanny.pid).memory_info().rss
    fractions = [dask.config.get(f"distributed.worker.memory.{what}") for what in ("pause", "terminate")]
    if limit and any(fraction and taken > fraction * limit for fraction in fractions):
        raise TooLittleMemory(
            f"a worker process takes {taken:,} bytes with nothing to do, and has a limit of {limit:,}"
        )


def remove_semaphores(directory: Path) -> None:
    """Removes the semaphores of a cluster: multiprocessing's tracker, which would, is killed with the rest.

    Args:
        directory: the cluster's, after which they are named.
    """
    for semaphore in Path("/dev/shm").glob(f"sem.{directory.name}-*"):
        semaphore.unlink(missing_ok=True)


def _follow(directory: str) -> None:
    sys.stdin.read()
    shutil.rmtree(directory, ignore_errors=True)
    remove_semaphores(Path(directory))
    os.killpg(0, signal.SIGKILL)

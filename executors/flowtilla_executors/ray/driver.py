"""The driver process: takes calls from the worker, has Ray run them, says how they ended."""

import multiprocessing
import os
import signal
import socket
import threading
from functools import partial
from pathlib import Path
from typing import NoReturn

from flowtilla.errors import ExecutorError
from flowtilla_executors.local.directory import remove
from flowtilla_executors.ray import session
from flowtilla_executors.ray.cluster import join
from flowtilla_executors.ray.options import Options
from flowtilla_executors.ray.wire import Wire


def serve(end: socket.socket, options: Options) -> None:
    """Joins the cluster and does what the worker says, until the worker closes its end or is gone."""
    os.setsid()
    _ignore_signals()
    threading.Thread(target=_follow_worker, args=(options,), name="flowtilla-follow", daemon=True).start()
    wire = Wire(end)
    try:
        with join(options, partial(wire.send, "warning")) as (address, detail):
            _ignore_signals()
            # Only now: Ray reads the environment when it is imported, and `join` has set it.
            from flowtilla_executors.ray.calls import Calls

            calls = Calls(wire, address, detail, options)
            if not options.log_to_driver:
                _silence()
            calls.serve()
    except ExecutorError as error:
        wire.send("refused", type(error).__name__, str(error))
    except Exception as error:
        kind = "ClusterUnreachable" if options.address is not None and _hung_up(error) else "ExecutorError"
        wire.send("refused", kind, f"{options.name} cannot be used: {type(error).__name__}: {error}")
    _leave(options)


def _hung_up(error: Exception) -> bool:
    """Returns whether a cluster, or its Ray Client server, went while it was joined: another try may find it whole."""
    import grpc
    from ray.exceptions import RayError

    return isinstance(error, (ConnectionError, grpc.RpcError, RayError))


def _ignore_signals() -> None:
    # The worker decides when this process ends; Ray sets handlers of its own.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)


def _silence() -> None:
    """Keeps what Ray prints about tasks and nodes that die, which the worker hears anyway, from the worker's output."""
    with Path(os.devnull).open("wb") as nowhere:
        for descriptor in (1, 2):
            os.dup2(nowhere.fileno(), descriptor)


def _follow_worker(options: Options) -> NoReturn:
    """Ends this process as soon as the worker is gone."""
    worker = multiprocessing.parent_process()
    assert worker is not None
    worker.join()
    _leave(options)


def _leave(options: Options) -> NoReturn:
    """Ends this process, with all of a local cluster."""
    _silence()
    session.end_own(lambda: None if options.folder is None else remove(options.folder))
    # Not by the usual way, on which Ray would look for its cluster.
    os._exit(0)

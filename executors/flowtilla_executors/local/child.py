"""What runs in a child process: calls, one at a time, until the worker goes."""

import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from flowtilla.cancellation import Cancellation
from flowtilla.logs import LogLine
from flowtilla_executors import capture
from flowtilla_executors.invoke import invoke
from flowtilla_executors.local.directory import remove
from flowtilla_executors.local.files import store
from flowtilla_executors.local.line import Line
from flowtilla_executors.local.memory import FileMemory, lend
from flowtilla_executors.outcome import Outcome
from flowtilla_executors.values import Snapshot

#: Names in the private folder: the socket that takes log lines.
LOGS = "logs"

#: Characters of log lines in one datagram, of at most four bytes each; a socket's buffer takes more.
_DATAGRAM = 16 * 1024

_directories: list[Path] = []
_socket: socket.socket


def serve(worker: Connection, directories: list[Path], env_vars: dict[str, str]) -> None:
    """Runs calls as they come, until this process is killed or the worker is gone.

    Args:
        worker: where calls come from and outcomes go.
        directories: where big values go; the first holds the socket for log lines.
        env_vars: set before any stage's module is imported.
    """
    _begin(directories, env_vars)
    line = Line(worker)
    while True:
        try:
            (name, payload), cancellation = line.next()
        except EOFError:
            _leave()
        line.reply(*_run(name, payload, cancellation))


def _begin(directories: list[Path], env_vars: dict[str, str]) -> None:
    global _socket
    os.environ.update(env_vars)
    _directories.extend(directories)
    # The worker decides when this process ends, so signals for everybody are not for it: a terminal's by the session,
    # a service manager's by handlers that do nothing (an ignored signal would stay ignored in a stage's subprocesses).
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_follow_worker, name="flowtilla-follow", daemon=True).start()
    _socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    _socket.connect(str(directories[0] / LOGS))
    logging.getLogger().setLevel(logging.INFO)
    capture.install()
    lend(FileMemory(directories))


def _run(name: str, payload: Snapshot, cancellation: Cancellation) -> tuple[Snapshot | None, Outcome]:
    """Runs one call; a big value goes to a file of the name given."""
    call, parents = payload.load()
    keep: Callable[[Any], Snapshot] = partial(store, name=name, directories=_directories)
    return invoke(call, parents, keep, _emit, cancellation)


def _emit(lines: Sequence[LogLine]) -> None:
    for group in _datagrams(lines):
        _socket.send(pickle.dumps(group))


def _datagrams(lines: Sequence[LogLine]) -> Iterator[list[LogLine]]:
    ends = itertools.accumulate(len(line.message) + 100 for line in lines)
    for _, group in itertools.groupby(zip(ends, lines, strict=True), key=lambda pair: pair[0] // _DATAGRAM):
        yield [line for _, line in group]


def _follow_worker() -> None:
    """Ends this process as soon as the worker is gone, even in the middle of a call."""
    worker = multiprocessing.parent_process()
    assert worker is not None
    worker.join()
    _leave()


def _leave() -> NoReturn:
    """Ends this process, and what its stages started; nothing of them stays behind."""
    for directory in _directories:
        remove(directory)
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("killed")

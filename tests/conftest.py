"""What every test stands on: a hard alarm, no inherited configuration, no process left behind."""

import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest
from redis import Redis

from backends import BACKENDS, Backend, Started
from fleet import Fleet
from flowtilla_worker.dev.embedded import EmbeddedValkey

pytest.register_assert_rewrite("executor_bench", "executor_suite", "executor_suite_running", "executor_suite_stopping")

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("flowtilla", deadline=None)
hypothesis.settings.load_profile("flowtilla")

#: Seconds one test may take; a test that hangs is a failure with a traceback, not a hung suite.
ALARM = 120


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps together, where several processes share the tests, those of a file and those on an executor's cluster."""
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        item.add_marker(pytest.mark.xdist_group(params.get("backend", item.path.stem)))


@pytest.fixture(autouse=True)
def alarm(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that takes longer than `ALARM` seconds, or than its `alarm` mark says."""
    mark = request.node.get_closest_marker("alarm")
    seconds = mark.args[0] if mark else ALARM

    def rang(*_: object) -> None:
        faulthandler.dump_traceback(all_threads=True)
        raise TimeoutError(f"the test took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, rang)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the settings of whoever runs the tests out of them."""
    for name in os.environ:
        if name.startswith(("FLOWTILLA", "RQ_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def clean_signals() -> Iterator[None]:
    """Takes back the handlers that RQ's own worker leaves when it ran in this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def clean_logging() -> Iterator[None]:
    """Takes back what a command run in this process did to the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """Fails the session when a process that a test started outlives it."""
    yield
    # multiprocessing's own tracker lives as long as the interpreter does.
    left = [line for pid in _children(os.getpid()) if "resource_tracker" not in (line := _command(pid))]
    assert left == []


def _children(parent: int) -> list[int]:
    if not sys.platform.startswith("linux"):
        return []
    tasks = Path(f"/proc/{parent}/task")
    found = [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
    return [pid for pid in found if Path(f"/proc/{pid}/cmdline").exists()]


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() or f"process {pid}, not waited for"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A real server, for all tests of the session that leave it running."""
    with EmbeddedValkey(tmp_path_factory.mktemp("server"), persistent=True) as started:
        yield started


@pytest.fixture
def redis(server: EmbeddedValkey) -> Iterator[Redis]:
    """A connection to the server, emptied."""
    with Redis.from_url(server.url) as connection:
        connection.flushall()
        yield connection


@pytest.fixture
def fleet(server: EmbeddedValkey, redis: Redis, tmp_path: Path) -> Iterator[Fleet]:
    """Worker processes on the server, stopped at the end of the test."""
    with Fleet(server.url, tmp_path) as started:
        yield started


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Every executor in turn, with its cluster if it needs one; pytest runs the tests of one after another."""
    with ExitStack() as stack:
        yield BACKENDS[request.param].started(tmp_path_factory.mktemp(request.param), stack)


@pytest.fixture(scope="session")
def started(backend: Backend) -> Iterator[Started]:
    """The back end's executor, which all tests share that need none of their own."""
    shared = Started(backend)
    yield shared
    shared.close()

"""One worker on one embedded server, for the benchmarks."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import redis

import flowtilla
from flowtilla.settings import Settings
from flowtilla_worker.dev.embedded import EmbeddedValkey

HERE = Path(__file__).parent


class Bench:
    """An embedded server with a client, and workers on it.

    Args:
        url: the server's.
        folder: for storage and logs.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.redis = redis.Redis.from_url(url)
        storage = {"base_path": str(folder / "storage")}
        self.client = flowtilla.Client(settings=Settings.model_validate({"redis": {"url": url}, "storage": storage}))
        self.env = os.environ | {
            "PYTHONPATH": str(HERE),
            "FLOWTILLA__REDIS__URL": url,
            "FLOWTILLA__STORAGE__BASE_PATH": str(folder / "storage"),
            "FLOWTILLA__SERVICES__WORKER__CONCURRENCY": "64",
            "FLOWTILLA__SERVICES__WORKER__MODULES": '["noop"]',
        }

    def worker(self, mode: str, name: str = "bench") -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Runs a worker whose stages run in threads or processes; entered once it listens."""
        return self.worker_on({"target": "local", "mode": mode, "cpus": 2}, name)

    @contextmanager
    def worker_on(self, executor: dict[str, Any], name: str = "bench") -> Iterator[subprocess.Popen[bytes]]:
        """Runs a worker on an executor, as the configuration has it; entered once it listens."""
        worker = self.start_worker(executor, name)
        try:
            yield worker
        finally:
            worker.terminate()
            worker.wait()

    def start_worker(self, executor: dict[str, Any], name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts a worker, in a process group of its own, and returns its process once it listens."""
        env = self.env | {"FLOWTILLA__SERVICES__COMPUTE__EXECUTOR": json.dumps(executor)}
        command = [sys.executable, "-m", "flowtilla.cli", "worker", "--name", name, *arguments]
        log = self.folder / f"{name}.log"
        with log.open("wb") as file:
            worker = subprocess.Popen(command, env=env, stderr=file, cwd=self.folder, start_new_session=True)
        while b"listens on" not in log.read_bytes():
            time.sleep(0.005)
        return worker


@contextmanager
def bench() -> Iterator[Bench]:
    """Starts an embedded server, append-only as in production."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder), persistent=True) as server:
        yield Bench(server.url, Path(folder))


def show(what: str, value: float, unit: str, than: str = "") -> None:
    """Prints one line of a table."""
    print(f"{what:58} {value:12,.2f} {unit:8} {than}", flush=True)

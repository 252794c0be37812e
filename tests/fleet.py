"""Worker processes for tests: the installed command, started, stopped and killed like an operator would."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import flowtilla
from flowtilla.settings import Settings

T = TypeVar("T")

MODULES = Path(__file__).parent / "modules"

#: Short, so that a test need not wait for the takeover of a dead worker's runs.
LEASE, HEARTBEAT = 2.0, 0.4


class Fleet:
    """Worker processes on one server.

    Args:
        url: the server's; or all that the configuration's `redis` is.
        folder: for logs, and the files through which stages and tests meet.
        storage: where artifacts, results and logs go; a folder in `folder` when None.
    """

    def __init__(self, url: str | dict[str, Any], folder: Path, storage: dict[str, Any] | None = None) -> None:
        self.redis = {"url": url} if isinstance(url, str) else url
        self.url = self.redis.get("url", "")
        self.folder = folder
        self.storage = storage or {"base_path": str(folder / "storage")}
        self.settings = Settings.model_validate({"redis": self.redis, "storage": self.storage})
        self.client = flowtilla.Client(settings=self.settings)
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.client.close()
        for worker in self._started:
            with suppress(ProcessLookupError):
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait()
        for name in self.workers:
            # pytest shows it if the test failed.
            print(f"--- {name} said:\n{self.said(name)}")

    def start(
        self,
        name: str,
        *arguments: str,
        mode: str = "threads",
        executor: dict[str, Any] | None = None,
        wait: bool = True,
        **settings: object,
    ) -> None:
        """Starts a worker and waits until it listens.

        Args:
            name: its name.
            arguments: more for the command line.
            mode: where stages run: threads or processes.
            executor: another executor than Local, as in the configuration.
            wait: whether to wait until it listens.
            settings: of `services.worker`, such as `grace="1s"`.
        """
        worker = {"LEASE": LEASE, "HEARTBEAT": HEARTBEAT, "MODULES": '["fleet_stages"]'}
        worker |= {key.upper(): value for key, value in settings.items()}
        env = os.environ | {
            "PYTHONPATH": str(MODULES),
            "FLOWTILLA__REDIS": json.dumps(self.redis),
            "FLOWTILLA__STORAGE": json.dumps(self.storage),
            "FLOWTILLA__SERVICES__COMPUTE__EXECUTOR": json.dumps(
                executor or {"target": "local", "mode": mode, "cpus": 4}
            ),
        }
        env |= {f"FLOWTILLA__SERVICES__WORKER__{key}": str(value) for key, value in worker.items()}
        command = [sys.executable, "-m", "flowtilla.cli", "worker", "--name", name, *arguments]
        with self._log(name).open("ab") as log:
            self.workers[name] = subprocess.Popen(command, stderr=log, env=env, cwd=self.folder)
        self._started.append(self.workers[name])
        if wait:
            until(lambda: "listens on" in self.said(name))

    def submit(self, *stages: dict[str, Any], **options: Any) -> flowtilla.Run:
        """Submits a workflow of stages whose targets are functions of `fleet_stages`, by name."""
        options.setdefault("input", {"folder": str(self.folder)})
        return self.client.submit(self.workflow(*stages), **options)

    def workflow(self, *stages: dict[str, Any]) -> flowtilla.Workflow:
        """Returns such a workflow; a stage's target is the function of its name when it gives none."""
        full = [stage | {"target": f"fleet_stages.{stage.get('target', stage['name'])}"} for stage in stages]
        return flowtilla.Workflow("tested", full)

    def kill(self, name: str, how: signal.Signals) -> None:
        """Sends a worker a signal."""
        self.workers[name].send_signal(how)

    def ended(self, name: str, seconds: float = 30) -> int:
        """Waits until a worker has ended and returns its exit code."""
        return self.workers[name].wait(seconds)

    def said(self, name: str) -> str:
        """Returns what a worker wrote."""
        log = self._log(name)
        return log.read_text() if log.exists() else ""

    def begun(self, attempt: int = 1) -> None:
        """Waits until a `gate` stage of an attempt has begun."""
        until(lambda: (self.folder / f"begun-{attempt}").exists())

    def open_gate(self) -> None:
        """Lets `gate` stages end."""
        (self.folder / "open").touch()

    def marks(self, name: str = "mark") -> list[str]:
        """Returns what `mark` stages left, a line each time one ran."""
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def until(condition: Callable[[], T], seconds: float = 30.0, every: float = 0.02) -> T:
    """Waits until a condition gives something true, and returns that.

    Raises:
        AssertionError: it does not within the time.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(every)
    return found

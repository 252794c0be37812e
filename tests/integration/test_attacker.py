"""Somebody who can write anything to Redis: workers live on, runs of others end well, and nothing runs that may not."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis

import flowtilla
from anything import Evil
from attacks import Attacker, look_at
from fleet import MODULES, until
from flowtilla.settings import Settings, SigningSettings
from flowtilla.storage import ArtifactStore
from flowtilla.storage.checkpoints import save_checkpoint
from flowtilla.storage.logs import store_log
from flowtilla.storage.results import store_result
from flowtilla.submission import prepare

#: Another `SEED` in the environment makes other attacks.
SEED, CASES, BETWEEN = int(os.environ.get("SEED", "20261123")), 3000, 15

HONEST = flowtilla.Workflow(
    "honest",
    [
        {"name": "a", "target": "attacked_stages.plus", "checkpoint": True},
        {"name": "b", "target": "attacked_jobs.add", "depends_on": ["a"]},
    ],
)
SLOW = flowtilla.Workflow(
    "slow",
    [
        {"name": "a", "target": "attacked_stages.slow", "checkpoint": True},
        {"name": "b", "target": "attacked_stages.slow", "depends_on": ["a"]},
    ],
)


class Watched:
    """A worker process that tells what its interpreter does."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.deputies: list[str] = []
        self.report, self._log = folder / f"{name}.report", folder / f"{name}.log"
        (folder / "spool").mkdir(exist_ok=True)
        worker = {"modules": ["attacked_stages"], "allowed_targets": ["attacked_jobs.*"], "queues": ["default", "odd"]}
        worker |= {"lease": 2, "heartbeat": 0.3, "concurrency": 8}
        settings = {
            "REDIS__URL": url,
            "STORAGE__BASE_PATH": str(folder / "storage"),
            "SERVICES__WORKER": json.dumps(worker),
            "SERVICES__COMPUTE__EXECUTOR": json.dumps({"target": "local", "mode": "threads", "cpus": 4}),
        }
        env = {f"FLOWTILLA__{key}": value for key, value in settings.items()}
        path = os.pathsep.join([str(MODULES), *filter(None, [os.environ.get("PYTHONPATH")])])
        env |= {"PYTHONPATH": path, "ATTACKED": str(folder / "attacked"), "TMPDIR": str(folder / "spool")}
        command = [sys.executable, str(MODULES / "watched_worker.py"), str(self.report), "--name", name]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, env=os.environ | env, cwd=folder / "spool")

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def arm(self) -> None:
        """Lets it tell from now on; its deputy it may end."""
        self.deputies = [str(child.pid) for child in psutil.Process(self.process.pid).children()]
        self.process.send_signal(signal.SIGUSR1)
        until(self.report.read_bytes)

    def events(self) -> Iterator[list[str]]:
        for line in self.report.read_text().splitlines():
            yield json.loads(line)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("do not read me")
    return tmp_path


@pytest.fixture
def settings(server: Any, folder: Path) -> Settings:
    return Settings.model_validate({"redis": {"url": server.url}, "storage": {"base_path": str(folder / "storage")}})


@pytest.fixture
def start(server: Any, folder: Path) -> Iterator[Callable[[str], Watched]]:
    """Starts a watched worker."""
    workers: list[Watched] = []

    def begin(name: str) -> Watched:
        workers.append(Watched(name, server.url, folder))
        until(lambda: "listens on" in workers[-1].said, 60)
        return workers[-1]

    yield begin
    for worker in workers:
        worker.process.kill()
        worker.process.wait()
        print(f"--- {worker.name} said:\n{worker.said[-5000:]}")


def attacker(redis: "Redis[Any]", settings: Settings, folder: Path) -> Attacker:
    """Returns an attacker who knows of things that others stored: a pickle that would run code among them."""
    data = settings.storage.model_dump(mode="json")
    store = ArtifactStore(settings.storage)
    evil = save_checkpoint(data, "other", "theirs", "s", Evil(str(folder / "unpickled")))
    records = [
        evil,
        save_checkpoint(data, "default", "theirs", "s", [1, 2]),
        store_result(data, "other", "theirs", "a secret of the other namespace")["record"],
        store_log(settings.storage, "other", "theirs", "a secret of the other namespace"),
        store.put("other", "table", "a secret of the other namespace").record.model_dump(mode="json"),
        store.put("default", "pickled", Evil(str(folder / "unpickled")), format="pickle").record.model_dump(
            mode="json"
        ),
    ]

    def job(workflow: flowtilla.Workflow, run_id: str) -> dict[str, Any]:
        args = prepare(settings, workflow, run_id=run_id, input={"x": 2}, retention=60).args[4:]
        return dict(zip(args[::2], args[1::2], strict=True))  # type: ignore[arg-type]

    return Attacker(redis, SEED, str(folder / "unpickled"), partial(job, HONEST), partial(job, SLOW), records)


@pytest.mark.alarm(400)
def test_an_attacker_in_redis_runs_reads_and_stops_nothing(
    redis: "Redis[Any]", settings: Settings, folder: Path, start: Callable[[str], Watched]
) -> None:
    """Thousands of attacks on every key, message and channel; between them, runs of others end well each time."""
    worker = start("w")
    outlives(worker, flowtilla.Client(settings=settings), attacker(redis, settings, folder), CASES)
    second = start("second")
    honest_run(flowtilla.Client(settings=settings))
    assert second.stop() == 0


def test_an_attacker_without_a_key_gets_nothing_run(
    redis: "Redis[Any]", settings: Settings, folder: Path, start: Callable[[str], Watched], monkeypatch: Any
) -> None:
    """Where runs are signed, not even functions that may run do so for somebody who holds no key."""
    signing = {"keys": {"k": secrets.token_hex(32)}, "active": "k"}
    monkeypatch.setenv("FLOWTILLA__SIGNING", json.dumps(signing))
    signed = settings.model_copy(update={"signing": SigningSettings.model_validate(signing)})
    outlives(start("w"), flowtilla.Client(settings=signed), attacker(redis, settings, folder), CASES // 5)
    store = ArtifactStore(settings.storage)
    assert store.exists("honest", "honest")
    assert not store.exists("default", "honest")


def outlives(worker: Watched, client: flowtilla.Client, evil: Attacker, cases: int) -> None:
    """Lets a worker be attacked, and makes sure that it did nothing else than its work."""
    for _ in range(5):
        honest_run(client)
    worker.arm()
    slowest = 0.0
    for _ in range(cases // BETWEEN):
        undo = [evil.attack() for _ in range(BETWEEN)]
        look_at(client, evil.draw.choice(evil.runs or ["nobody"]))
        for one in undo:
            one()
        slowest = max(slowest, honest_run(client))
        assert worker.process.poll() is None
    print(f"{evil.counts}; the slowest honest run took {slowest:.2f} s")

    said = worker.said
    assert worker.stop() == 0
    assert "Traceback" not in said
    assert not (worker.folder / "attacked").exists()
    assert not (worker.folder / "unpickled").exists()
    assert forbidden(worker) == []


def honest_run(client: flowtilla.Client) -> float:
    """Submits a run of somebody else, and makes sure of all that came of it."""
    begun = time.monotonic()
    run = client.submit(HONEST, {"x": 20}, namespace="honest")
    assert run.result(timeout=20) == 22
    assert run.artifacts["honest"].read() == {"x": 20}
    assert [line.message for line in run.logs()] == ["20 and one"]
    assert run.state == "finished"
    return time.monotonic() - begun


def forbidden(worker: Watched) -> list[list[str]]:
    """Returns what a worker did that none of its own work needs."""
    folder = worker.folder
    places = Places(
        mine=[str(folder / "storage"), str(folder / "spool"), "/dev/shm"],
        deputies=worker.deputies,
        theirs=[str(folder / "storage" / area / "other") for area in ("checkpoints", "results", "logs")],
        code=[sys.base_prefix, sys.prefix, str(Path(flowtilla.__file__).parents[2])],
    )
    return [event for event in worker.events() if not places.expect(*event)]


@dataclass(frozen=True)
class Places:
    """Where a worker may look.

    Args:
        mine: where it reads and writes.
        deputies: processes that it may end.
        theirs: what is there of others.
        code: where it reads, to show a traceback, and to decode text.
    """

    mine: list[str]
    deputies: list[str]
    theirs: list[str]
    code: list[str]

    def expect(self, event: str, *args: str) -> bool:
        """Returns whether an event is part of a worker's own work."""
        match event:
            case "armed":
                return True
            case "open":
                writes = int(args[2]) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                return self._is_mine(args[0]) or (not writes and _is_in(args[0], self.code))
            case "import":
                return args[0].startswith("encodings.")
            case "exec":
                return "/encodings/" in args[0] and _is_in(args[0], self.code)
            case "compile":
                return args[1] == "<unknown>"  # how Python finds what to underline in a traceback
            case "socket.connect":
                return "127.0.0.1" in args[1]
            case "os.kill":
                return args[0] in self.deputies  # when the machine is too busy for one to end by itself in time
            case "os.listdir":
                return self._is_mine(args[0]) or _is_in(args[0], self.code)
            case "os.mkdir" | "os.remove" | "os.rmdir" | "os.scandir" | "shutil.rmtree" | "os.truncate":
                return self._is_mine(args[0])
            case "os.rename" | "shutil.move":
                return self._is_mine(args[0]) and self._is_mine(args[1])
        return False

    def _is_mine(self, path: str) -> bool:
        # What is removed with its folder is named by the folder's descriptor, and by its name in there.
        return "/" not in path or (_is_in(path, self.mine) and not _is_in(path, self.theirs))


def _is_in(path: str, folders: list[str]) -> bool:
    real = os.path.realpath(path)
    return any(real == os.path.realpath(one) or real.startswith(f"{os.path.realpath(one)}/") for one in folders)

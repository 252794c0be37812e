"""`flowtilla dev`: everything a folder needs, with two words and no Redis, and nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fleet import until
from flowtilla_worker.dev.run import folder_targets

FLOWTILLA = str(Path(sys.executable).with_name("flowtilla"))

WORKFLOW = """
kind: workflow
metadata: {name: greet}
spec:
  stages:
    - {name: greet, target: jobs.greet}
"""

#: Seconds until a fleet is gone that was ended while Ray was starting, which stops its process for up to 30 s.
RAY_STARTS = 60

# A worker whose server and supervisor are both gone ends soon after its grace.
CONFIGURATION = "services: {worker: {grace: 1s}}"


class Dev:
    """A `flowtilla dev` in a folder, and what it says."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._log = folder / "dev.log"
        with self._log.open("w") as log:
            # In a session of its own, so that Ctrl-C can be sent to all of it, as a terminal does.
            self.process = subprocess.Popen(
                [FLOWTILLA, "dev", *arguments], cwd=folder, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def url(self) -> str:
        return str(until(lambda: re.search(r"server +(redis://\S+)", self.said))[1])

    def ready(self, workers: int = 1) -> "Dev":
        until(lambda: self.said.count("listens on") == workers)
        return self

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a stage and a workflow."""
    (tmp_path / "jobs.py").write_text("def greet(name='you'):\n    return f'hello {name}'\n")
    (tmp_path / "workflow.yaml").write_text(WORKFLOW)
    (tmp_path / "flowtilla.yaml").write_text(CONFIGURATION)
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Dev]]:
    """Starts `flowtilla dev` in the folder, and ends what is left of it."""
    devs: list[Dev] = []

    def begin(*arguments: str, workers: int = 1) -> Dev:
        devs.append(Dev(folder, "-n", str(workers), *arguments))
        return devs[-1].ready(workers)

    yield begin
    for dev in devs:
        if dev.process.poll() is None:
            dev.end(signal.SIGKILL)
    until(lambda: not left_of(folder), seconds=RAY_STARTS)


def left_of(folder: Path) -> list[str]:
    """Returns the command lines of processes that work in a folder or name it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            if str(folder) in command or (process / "cwd").readlink() == folder:
                found.append(command)
        except OSError:
            continue  # It has ended.
    return found


def flowtilla(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [FLOWTILLA, *arguments], cwd=folder, env=os.environ | (env or {}), capture_output=True, text=True, timeout=60
    )


def test_two_words_and_a_workflow_runs(start: Callable[..., Dev], folder: Path, tmp_path_factory: Any) -> None:
    """Commands in the folder find the server by themselves, and in any other once they typed what dev says."""
    dev = start("--no-dashboard")

    here = flowtilla(folder, "submit", "workflow.yaml", "-i", "name=here", "--wait")
    exports = dict(re.findall(r"export (\w+)=(\S+)", dev.said))
    there = flowtilla(
        tmp_path_factory.mktemp("there"),
        "submit",
        str(folder / "workflow.yaml"),
        "-i",
        "name=there",
        "--wait",
        env=exports,
    )

    assert (here.returncode, here.stdout) == (0, "hello here\n"), here.stderr
    assert (there.returncode, there.stdout) == (0, "hello there\n"), there.stderr


def test_only_the_folders_modules_may_run(start: Callable[..., Dev], folder: Path) -> None:
    """It says which targets are allowed, and refuses any other."""
    dev = start("--no-dashboard")
    (folder / "bad.yaml").write_text(WORKFLOW.replace("jobs.greet", "os.getcwd"))

    refused = flowtilla(folder, "submit", "bad.yaml", "--wait")

    assert "which may run the modules of this folder: jobs.*" in dev.said
    assert refused.returncode == 1
    assert "'os.getcwd' is not allowed" in refused.stderr


def test_ctrl_c_stops_everything(start: Callable[..., Dev], folder: Path) -> None:
    """After Ctrl-C at the terminal, which reaches all processes of the session, none is left, and nor is the note."""
    dev = start(workers=2)
    assert (folder / ".flowtilla/dev.json").exists()

    os.killpg(dev.process.pid, signal.SIGINT)

    assert dev.process.wait(30) == 0, dev.said
    until(lambda: not left_of(folder), seconds=RAY_STARTS)
    assert not (folder / ".flowtilla/dev.json").exists()
    assert dev.said.count("asked to stop: finishing") == 2


def test_killing_it_leaves_nothing_behind(start: Callable[..., Dev], folder: Path) -> None:
    """kill -9 ends server, workers and dashboard too; commands then do not look for them any more."""
    dev = start()

    dev.end(signal.SIGKILL)

    until(lambda: not left_of(folder), seconds=RAY_STARTS)
    assert "Redis at localhost:6379" in flowtilla(folder, "runs").stderr


def test_what_was_there_is_there_again(start: Callable[..., Dev], folder: Path) -> None:
    """Runs and results outlive a restart."""
    dev = start("--no-dashboard")
    run_id = json.loads(flowtilla(folder, "submit", "workflow.yaml", "--wait", "--json").stdout)["id"]
    dev.end()

    start("--no-dashboard")

    assert json.loads(flowtilla(folder, "status", run_id, "--json").stdout)["state"] == "finished"


def test_a_second_one_is_refused_with_the_firsts_url(start: Callable[..., Dev], folder: Path) -> None:
    """One folder has one server; the message says where it is, and the first goes on."""
    dev = start("--no-dashboard")

    second = flowtilla(folder, "dev")

    assert second.returncode == 4
    assert dev.url in second.stderr
    assert flowtilla(folder, "submit", "workflow.yaml", "--wait").stdout == "hello you\n"


def test_the_dashboard_shows_the_server(start: Callable[..., Dev], folder: Path) -> None:
    """rq-dashboard answers on the loopback where dev says, and knows the worker."""
    dev = start()
    address = re.search(r"dashboard +(http://127\.0\.0\.1:\d+)", dev.said)
    assert address

    with urllib.request.urlopen(f"{address[1]}/0/data/workers.json") as answer:
        workers = json.load(answer)["workers"]

    assert [worker["name"] for worker in workers] == ["dev"]


@pytest.mark.parametrize(
    "elsewhere",
    [
        "{url: 'redis://elsewhere'}",
        "{url: 'rediss:///0', tls: {ca: none.pem}, sentinel: {service: queue, nodes: [elsewhere]}}",
    ],
)
def test_a_configured_redis_is_pointed_out(start: Callable[..., Dev], folder: Path, elsewhere: str) -> None:
    """Where the folder's configuration names another Redis, dev still uses its own, and says what to type."""
    (folder / "flowtilla.yaml").write_text(f"redis: {elsewhere}\n{CONFIGURATION}")

    dev = start("--no-dashboard")

    assert "the configuration names another Redis" in dev.said
    with redis.Redis.from_url(dev.url) as client:
        assert client.smembers("rq:workers")
    exports = dict(re.findall(r"export (\w+)=(\S+)", dev.said))
    assert "hello" in flowtilla(folder, "submit", "workflow.yaml", "--wait", env=exports).stdout


def test_the_port_can_be_chosen(start: Callable[..., Dev], folder: Path) -> None:
    """--port is the server's port."""
    first = start("--no-dashboard").url
    port = first.split(":")[-1].removesuffix("/0")
    (folder / "other").mkdir()

    taken = flowtilla(folder / "other", "dev", "--port", port)

    assert taken.returncode == 4
    assert "did not start" in taken.stderr


def test_targets_are_those_of_modules_and_packages(tmp_path: Path) -> None:
    """Modules, packages and namespace packages count; environments, hidden, private and build files do not."""
    for name in (
        "jobs.py",
        "setup.py",
        "conftest.py",
        "_private.py",
        "not-a-module.py",
        "pkg/__init__.py",
        "space/a.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in (".hidden/a.py", "venv/a.py", "venv/pyvenv.cfg", "data/a.csv", "__pycache__/a.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert folder_targets(tmp_path) == ["jobs.*", "pkg.*", "space.*"]

"""Secrets that somebody planted in a fleet's configuration are nowhere to be found where people look."""

import json
import os
import secrets
import signal
import subprocess
import sys
import traceback
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flowtilla
from fleet import MODULES, until
from flowtilla.config import load, shown
from flowtilla.errors import FlowtillaError
from flowtilla.settings import Settings
from flowtilla_worker.dev.dashboard import Dashboard
from valkeys import Valkey

#: What is planted, and must not be found.
SECRETS = {
    name: f"planted-{name}-{secrets.token_hex(16)}"
    for name in ("redis-password", "signing-key", "old-key", "access-key", "storage-secret", "api-token")
}


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server that asks for a password."""
    with Valkey(tmp_path / "valkey") as started:
        # Not an option: those can be seen in `ps`.
        started.client.config_set("requirepass", SECRETS["redis-password"])
        yield started


@pytest.fixture
def env(valkey: Valkey, tmp_path: Path) -> dict[str, str]:
    """The configuration of a fleet, full of secrets, as its environment."""
    settings = {
        "REDIS__URL": valkey.url_of(f"default:{SECRETS['redis-password']}"),
        "SIGNING": {"keys": {"new": SECRETS["signing-key"], "old": SECRETS["old-key"]}, "active": "new"},
        "STORAGE": {
            "protocol": "s3",
            "base_path": "bucket",
            # Nothing listens there: every use of the storage fails.
            "parameters": {
                "key": SECRETS["access-key"],
                "secret": SECRETS["storage-secret"],
                "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
                "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 1},
            },
        },
        "SERVICES__COMPUTE__EXECUTOR": {
            "target": "local",
            "mode": "processes",
            "cpus": 1,
            "env_vars": {"API_TOKEN": SECRETS["api-token"]},
        },
        "SERVICES__WORKER": {"modules": ["secret_stages"], "grace": "2s", "lease": "2s", "heartbeat": "0.5s"},
        "LOGGING": {"level": "DEBUG", "format": "json"},
    }
    said = {
        f"FLOWTILLA__{key}": value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()
    }
    return os.environ | said | {"PYTHONPATH": str(MODULES), "COLUMNS": "200"}


@pytest.mark.alarm(300)
def test_planted_secrets_are_nowhere(valkey: Valkey, env: dict[str, str], tmp_path: Path) -> None:
    """Not in what workers say, in runs, their logs and errors, in Redis, on pages, in `ps`, or in any `repr`."""
    found = Found()
    settings = load(env=env)
    client = flowtilla.Client(settings=settings)
    log = tmp_path / "worker.log"
    with log.open("wb") as sink:
        command = [sys.executable, "-m", "flowtilla.cli", "worker", "-n", "2"]
        worker = subprocess.Popen(command, env=env, cwd=tmp_path, stderr=sink, stdout=sink)
    try:
        look_at_runs(client, settings, found)
        look_at_commands(client, env, tmp_path, found)
        look_at_pages(env, tmp_path, found)
        found.look("ps", *processes())
        trouble(valkey, client, log, found)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
    found.look("the workers' log", log.read_text())
    found.look("repr", repr(settings), str(settings), repr(client), repr(client.__dict__), str(shown(settings)))
    assert len(found.places) > 30
    assert not found.leaks, "\n".join(found.leaks)


class Found:
    """Where was looked, and where a secret was found."""

    def __init__(self) -> None:
        self.places: list[str] = []
        self.leaks: list[str] = []

    def look(self, where: str, *texts: str) -> None:
        """Looks for every secret in texts."""
        for text in texts:
            self.places.append(where)
            for name, secret in SECRETS.items():
                if secret in text:
                    place = text.index(secret)
                    self.leaks.append(f"{name} in {where}: …{text[max(0, place - 200) : place]}")

    def look_at_error(self, where: str, error: BaseException) -> None:
        """Looks at an error, at what caused it, and at the variables of every frame."""
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        self.look(where, str(error), repr(error), "".join(told.format()))


def look_at_runs(client: flowtilla.Client, settings: Settings, found: Found) -> None:
    """Looks at runs that end in many ways: well, with an error, with the storage's, refused."""
    own = settings.model_copy(update={"signing": settings.signing.model_copy(update={"active": "old"})})
    guessed = settings.signing.model_validate({"keys": {"new": secrets.token_hex(32)}, "active": "new"})
    for name, by in {
        "speaks": client,
        "raises": client,
        "stores": client,
        "large": flowtilla.Client(settings=own),
        "refused": flowtilla.Client(settings=settings.model_copy(update={"signing": guessed})),
    }.items():
        target = f"secret_stages.{'speaks' if name == 'refused' else name}"
        run = by.submit(flowtilla.Workflow(name, [{"name": name, "target": target}]))
        try:
            found.look(f"the result of {name}", str(run.result(timeout=60)))
            assert name == "speaks"
        except FlowtillaError as error:
            assert name != "speaks", error
            found.look_at_error(f"the error of {name}", error)
        found.look(f"the record of {name}", repr(run.record), repr(run))
        found.look(f"the log of {name}", *map(str, client._redis.xrange(f"flowtilla:run:{run.id}:log")))
    assert "has no API_TOKEN" not in str(client.records()), "the stage did not get its secret"
    for key in client._redis.keys("*"):
        found.look(f"the key {key.decode()}", dumped(client, key))


def dumped(client: flowtilla.Client, key: bytes) -> str:
    """Returns all that a key holds."""
    redis: Any = client._redis
    read = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"set": redis.smembers,
        b"list": lambda name: redis.lrange(name, 0, -1),
        b"zset": lambda name: redis.zrange(name, 0, -1),
        b"stream": redis.xrange,
    }
    return str(read[redis.type(key)](key))


def look_at_commands(client: flowtilla.Client, env: dict[str, str], folder: Path, found: Found) -> None:
    """Looks at what the command line says, about all that there is and when it fails."""
    run = client.records()[0].id
    commands = [
        "config show",
        "runs",
        f"status {run}",
        f"status {run} --json",
        f"logs {run}",
        "workers",
        "artifacts list",
    ]
    for command in [*commands, "--version", "nonsense", f"artifacts get nothing {folder}/x"]:
        words = [sys.executable, "-m", "flowtilla.cli", *command.split()]
        done = subprocess.run(words, env=env, cwd=folder, capture_output=True, text=True, timeout=60)
        assert command != "config show" or done.stdout.count("*****") > 5
        found.look(f"flowtilla {command}", done.stdout, done.stderr)
    for wrong in ("REDIS__URL", "SIGNING", "STORAGE"):
        broken = env | {f"FLOWTILLA__{wrong}": f"{env[f'FLOWTILLA__{wrong}']}/x]"}
        words = [sys.executable, "-m", "flowtilla.cli", "runs"]
        done = subprocess.run(words, env=broken, cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        found.look(f"a wrong {wrong}", done.stdout, done.stderr)


def look_at_pages(env: dict[str, str], folder: Path, found: Found) -> None:
    """Looks at the dashboard's pages and its log."""
    log = folder / "dashboard.log"
    with Dashboard(env["FLOWTILLA__REDIS__URL"], log) as dashboard:
        data = {name: fetched(f"{dashboard.url}/0/data/{name}.json") for name in ("queues", "workers")}
        jobs = json.loads(fetched(f"{dashboard.url}/0/data/jobs/default/failed/50/asc/1.json"))["jobs"]
        assert jobs
        pages = ["", "0/view/jobs", "0/view/workers", "0/view/queues"]
        pages += [f"0/{kind}/job/{job['id']}{end}" for job in jobs for kind, end in (("view", ""), ("data", ".json"))]
        found.look("the dashboard's data", *data.values())
        found.look("the dashboard's pages", *(fetched(f"{dashboard.url}/{page}") for page in pages))
        found.look("ps with the dashboard", *processes())
    found.look("the dashboard's log", log.read_text())


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        text: str = answer.read().decode()
        return text


def processes() -> list[str]:
    """Returns the command line of every process of this machine."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended
    return lines


def trouble(valkey: Valkey, client: flowtilla.Client, log: Path, found: Found) -> None:
    """Looks at what everybody says when the password is wrong and when the server is gone."""
    valkey.client.config_set("requirepass", "another")
    valkey.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
    client._redis.connection_pool.disconnect()
    with pytest.raises(FlowtillaError) as refused:
        client.records()
    found.look_at_error("the error of a wrong password", refused.value)
    until(lambda: "WRONGPASS" in log.read_text() or "uthentication" in log.read_text())
    valkey.stop()
    with pytest.raises(FlowtillaError) as away:
        client.records()
    found.look_at_error("the error of a server that is away", away.value)
    until(lambda: "refused" in log.read_text())

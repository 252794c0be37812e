"""What a worker says of its Redis when it starts: what could lose runs there, or why it cannot start with it."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowtilla.connection import connect
from flowtilla.redis_settings import RedisSettings
from flowtilla_worker.checks import check, warnings
from valkeys import Valkey, Watched, watched


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server that all tests leave as it was."""
    with Valkey(tmp_path_factory.mktemp("checked")) as started:
        yield started


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A master, its replica, and Sentinels."""
    with watched(tmp_path_factory.mktemp("watched")) as started:
        yield started


def _checked(caplog: pytest.LogCaptureFixture, url: str) -> list[str]:
    """Returns the warnings about a Redis."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "flowtilla.worker"), connect(RedisSettings.model_validate({"url": url})) as own:
        check(own)
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_redis_that_keeps_all_gets_no_warning(server: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """It is named with its version, and that is all."""
    assert _checked(caplog, server.url) == []
    version = server.client.info("server")["valkey_version"]
    assert caplog.messages == [f"Redis at 127.0.0.1:{server.port} (database 0) is Valkey {version}"]


@pytest.mark.parametrize(
    ("option", "bad", "good", "said"),
    [
        ("appendonly", "no", "yes", "set `appendonly yes`"),
        ("maxmemory-policy", "allkeys-lru", "noeviction", "(allkeys-lru), and what it evicts is lost"),
        ("maxmemory-policy", "volatile-ttl", "noeviction", "set `maxmemory-policy noeviction`"),
    ],
)
def test_what_can_lose_runs_is_warned_of(
    server: Valkey, caplog: pytest.LogCaptureFixture, option: str, bad: str, good: str, said: str
) -> None:
    """One sentence, with what to do; none once it is done."""
    server.client.config_set(option, bad)
    try:
        (warning,) = _checked(caplog, server.url)
    finally:
        server.client.config_set(option, good)
    assert said in warning
    assert _checked(caplog, server.url) == []


def test_a_replica_is_warned_of(queue: Watched, caplog: pytest.LogCaptureFixture) -> None:
    """With the master's address, which is where the URL should have led."""
    replica = next(server for server in queue.servers if server is not queue.master)
    (warning,) = _checked(caplog, replica.url)
    assert f"is a replica of 127.0.0.1:{queue.master.port}" in warning


def test_a_sentinel_is_told_from_a_server(queue: Watched, caplog: pytest.LogCaptureFixture) -> None:
    """Its address is often written where the server's should be."""
    (warning,) = _checked(caplog, queue.sentinels[0].url)
    assert "is a Sentinel" in warning
    assert "redis.sentinel.nodes" in warning


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"redis_version": "6.2.14"}, "is Redis 6.2.14: use 7.0 or newer"),
        ({"redis_version": "7.2.4", "redis_mode": "cluster"}, "is a Redis Cluster"),
        ({"redis_version": "7.0.15", "aof_last_write_status": "err"}, "could not write to its disk"),
        ({"redis_version": "7.0.15"}, None),
        ({"redis_version": "something-else"}, None),
        ({}, None),
    ],
)
def test_old_servers_and_clusters_are_warned_of(info: dict[str, Any], said: str | None) -> None:
    """By what they say of themselves; what a server does not say is nothing to warn of."""
    found = list(warnings(info))
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_a_user_who_may_not_ask_is_not_kept(server: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """A Redis that tells nothing is no error: the log says that nothing was checked."""
    server.client.execute_command("ACL", "SETUSER", "mute", "on", ">pw", "~*", "&*", "+@all", "-info")
    assert _checked(caplog, server.url_of("mute:pw")) == []
    assert "nothing about it was checked" in caplog.text


def test_a_worker_that_cannot_start_says_why(queue: Watched, tmp_path: Path) -> None:
    """Exit code 4 and one sentence each: what is wrong, with which Redis, and what to do; no secret, no traceback."""
    server = queue.master
    server.client.execute_command("ACL", "SETUSER", "known", "on", ">right-secret", "~*", "&*", "+@all")
    server.client.execute_command("ACL", "SETUSER", "bare", "on", ">right-secret", "~other:*", "+@all")
    replica = next(one for one in queue.servers if one is not server)
    with Valkey(tmp_path / "closed", "--requirepass", "right-secret", password="right-secret") as closed:
        wrong = {
            closed.url: "AuthenticationError",
            closed.url_of(":wrong-secret"): "correct redis.url",
            server.url_of("known:wrong-secret"): "it asks for another user or password",
            server.url_of("known:right-secret", database=99): "it has fewer databases",
            server.url_of("bare:right-secret"): "deploy/users.acl",
            replica.url: "redis.url must lead to the master",
            queue.sentinels[0].url: "is a Sentinel",
            "redis://127.0.0.1:1/0": "redis:// or rediss:// too?",
        }
        began = {url: _worker(url, tmp_path) for url in wrong}
        ended = {url: (process.communicate(timeout=60)[0], process.returncode) for url, process in began.items()}
        for url, (said, code) in ended.items():
            assert code == 4, said
            assert wrong[url].lower() in said.lower(), said
            assert "secret" not in said
            assert "Traceback" not in said
            assert len(said.splitlines()) <= 4


def _worker(url: str, folder: Path) -> "subprocess.Popen[str]":
    env = os.environ | {"FLOWTILLA__REDIS": json.dumps({"url": url})}
    command = [sys.executable, "-m", "flowtilla.cli", "worker"]
    return subprocess.Popen(command, env=env, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

"""The embedded Valkey: a real server that answers, keeps its data, and is never left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fleet import until
from flowtilla.errors import QueueUnavailable
from flowtilla_worker.dev.embedded import EmbeddedValkey


def connect(url: str) -> "redis.Redis[bytes]":
    return redis.Redis.from_url(url)


def answers(url: str) -> bool:
    try:
        with connect(url) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


# Starts a server, says where, and waits to be ended.
HOLDER = """
import sys, time
from flowtilla_worker.dev.embedded import EmbeddedValkey
with EmbeddedValkey(sys.argv[1], persistent=True) as server:
    print(server.url, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has a server in the folder; its URL is on its standard output."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def url_of(holder: "subprocess.Popen[str]") -> str:
    assert holder.stdout is not None
    return holder.stdout.readline().strip()


def test_it_answers_on_the_loopback_and_evicts_nothing(tmp_path: Path) -> None:
    """Once entered, the server is ready, on a loopback port, with the settings a queue needs."""
    with EmbeddedValkey(tmp_path, persistent=True) as server, connect(server.url) as client:
        assert server.url.startswith("redis://127.0.0.1:")
        settings = client.config_get("*")

    assert (settings["maxmemory-policy"], settings["appendonly"]) == ("noeviction", "yes")
    assert (settings["bind"], settings["unixsocket"]) == ("127.0.0.1", "")


def test_it_stops_on_leaving(tmp_path: Path) -> None:
    """Once left, nothing answers any more; stopping again is harmless."""
    with EmbeddedValkey(tmp_path, persistent=False) as server:
        assert answers(server.url)

    assert not answers(server.url)
    server.stop()


def test_data_outlives_the_server_if_asked(tmp_path: Path) -> None:
    """A persistent server reads again what it held; another one begins empty."""
    for persistent, expected in ((True, b"1"), (False, None)):
        for _ in range(2):
            with EmbeddedValkey(tmp_path / str(persistent), persistent) as server, connect(server.url) as client:
                found = client.get("key")
                client.set("key", "1")
        assert found == expected


def test_two_servers_at_once_know_nothing_of_each_other(tmp_path: Path) -> None:
    """Each has a port and data of its own."""
    with EmbeddedValkey(tmp_path / "a", False) as one, EmbeddedValkey(tmp_path / "b", False) as two:
        with connect(one.url) as client:
            client.set("key", "1")
        with connect(two.url) as client:
            assert client.get("key") is None


def test_a_second_one_in_the_folder_is_refused(tmp_path: Path) -> None:
    """The folder's server goes on, and the message says where it is; later, the folder is free again."""
    with EmbeddedValkey(tmp_path, persistent=True) as server:
        with pytest.raises(QueueUnavailable, match=f"already runs in .*{server.url}"):
            EmbeddedValkey(tmp_path, persistent=True).start()
        assert answers(server.url)

    with EmbeddedValkey(tmp_path, persistent=True) as again:
        assert answers(again.url)


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    """A port that somebody else has is an error with the server's own words, and the folder is free afterwards."""
    with EmbeddedValkey(tmp_path / "a", False) as one:
        port = int(one.url.split(":")[-1].removesuffix("/0"))
        with pytest.raises(QueueUnavailable, match="did not start"):
            EmbeddedValkey(tmp_path / "b", False, port).start()

    with EmbeddedValkey(tmp_path / "b", False, port) as free:
        assert free.url == f"redis://127.0.0.1:{port}/0"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_process_that_started_it(
    holder: "subprocess.Popen[str]", tmp_path: Path, number: signal.Signals
) -> None:
    """Even kill -9 of its starter leaves no server behind, and what it held is there for the next one at once."""
    url = url_of(holder)
    with connect(url) as client:
        client.set("key", "1")
        server_pid = client.info("server")["process_id"]

    holder.send_signal(number)
    holder.wait()

    with EmbeddedValkey(tmp_path, persistent=True) as server, connect(server.url) as client:
        assert client.get("key") == b"1"
    until(lambda: not Path(f"/proc/{server_pid}").exists() if Path("/proc/self").exists() else not answers(url))


def test_ctrl_c_reaches_its_starter_only(holder: "subprocess.Popen[str]") -> None:
    """The server is in a session of its own, so that what its starter does at Ctrl-C still finds it."""
    url = url_of(holder)
    with connect(url) as client:
        server_pid = client.info("server")["process_id"]

    assert os.getsid(server_pid) != os.getsid(holder.pid)


def test_another_process_in_the_folder_is_refused(holder: "subprocess.Popen[str]", tmp_path: Path) -> None:
    """The folder is locked between processes as well as within one."""
    url = url_of(holder)

    with pytest.raises(QueueUnavailable, match=url):
        EmbeddedValkey(tmp_path, persistent=True).start()

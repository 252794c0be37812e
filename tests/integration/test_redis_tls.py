"""`rediss://` against servers that speak TLS, with certificates made for the test.

The server is a door that speaks TLS before a real Valkey, whose own binary does not.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import flowtilla
from certificates import Authority
from fleet import Fleet
from flowtilla import AsyncClient
from flowtilla.errors import QueueUnavailable
from flowtilla.settings import Settings
from valkeys import SERVICE, Door, Sentinel, Valkey

ADDRESS = "127.0.0.1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """What is behind the door."""
    with Valkey(tmp_path_factory.mktemp("behind")) as started:
        yield started


@pytest.fixture
def door(server: Valkey, authority: Authority) -> Iterator[Door]:
    """A door that shows a certificate of its address, and asks for one of the same authority."""
    server.client.flushall()
    with Door(server.port, authority.server(ADDRESS, asks=True)) as opened:
        yield opened


def _tls(authority: Authority, **other: Any) -> dict[str, str]:
    own = authority.sign("client")
    return {"ca": str(authority.ca), "cert": str(own.cert), "key": str(own.key)} | other


def _refused(redis: dict[str, Any]) -> str:
    settings = Settings.model_validate({"redis": redis})
    with flowtilla.Client(settings=settings) as client, pytest.raises(QueueUnavailable) as blocking:
        client.workers()

    async def ask() -> None:
        async with AsyncClient(settings=settings) as client:
            await client.workers()

    with pytest.raises(QueueUnavailable):
        asyncio.run(ask())
    return str(blocking.value)


def test_a_fleet_works_through_tls(door: Door, authority: Authority, tmp_path: Path) -> None:
    """Worker, client, asyncio client and health check, each with a certificate of its own."""
    redis = {"url": f"rediss://{ADDRESS}:{door.port}/0", "tls": _tls(authority)}
    with Fleet(redis, tmp_path) as fleet:
        fleet.start("w")
        assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1

        async def ask() -> Any:
            async with AsyncClient(settings=fleet.settings) as client:
                run = await client.submit(fleet.workflow({"name": "echo"}), {"x": 2})
                return await run.result(timeout=30)

        assert asyncio.run(ask()) == 2
        env = os.environ | {"FLOWTILLA__REDIS": json.dumps(redis)}
        check = Path(__file__).parents[2] / "deploy" / "healthcheck.py"
        healthy = subprocess.run([sys.executable, str(check)], env=env, capture_output=True, text=True)
        assert (healthy.returncode, healthy.stdout) == (0, "a worker beats here\n")


def test_who_shows_no_certificate_is_not_let_in(door: Door, authority: Authority) -> None:
    """A server that asks for one gets none, and hangs up."""
    assert "did not do as asked" in _refused(
        {"url": f"rediss://{ADDRESS}:{door.port}/0", "tls": {"ca": str(authority.ca)}}
    )


def test_a_server_that_nobody_known_signed_is_not_spoken_to(door: Door, authority: Authority, tmp_path: Path) -> None:
    """Neither when only the system's authorities are known, nor when another's certificate is."""
    url = f"rediss://{ADDRESS}:{door.port}/0"
    other = Authority(tmp_path)
    for redis in ({"url": url}, {"url": url, "tls": _tls(authority, ca=str(other.ca))}):
        assert "not signed by who is in redis.tls.ca" in _refused(redis)


def test_a_certificate_of_another_name_is_refused(server: Valkey, authority: Authority) -> None:
    """The right authority is not enough."""
    with Door(server.port, authority.server("elsewhere")) as elsewhere:
        redis = {"url": f"rediss://{ADDRESS}:{elsewhere.port}/0", "tls": _tls(authority)}
        assert "its certificate is of another name" in _refused(redis).replace("Its", "its")


def test_plain_words_at_a_door_that_speaks_tls_are_an_error(door: Door, server: Valkey, authority: Authority) -> None:
    """And so is TLS to a server that speaks none; neither hangs."""
    assert f"{ADDRESS}:{door.port}" in _refused({"url": f"redis://{ADDRESS}:{door.port}/0"})
    assert f"{ADDRESS}:{server.port}" in _refused(
        {"url": f"rediss://{ADDRESS}:{server.port}/0", "tls": _tls(authority)}
    )


def test_sentinels_and_master_are_spoken_to_in_tls(authority: Authority, tmp_path: Path) -> None:
    """With `rediss://` both are, with the same certificates."""
    tls = authority.server(ADDRESS, asks=True)
    with ExitStack() as stack:
        server = stack.enter_context(Valkey(tmp_path / "server"))
        # The Sentinel itself speaks plain words to the door that it names.
        master = stack.enter_context(Door(server.port, tls, both=True))
        sentinel = stack.enter_context(Sentinel(tmp_path / "sentinel", master.port, 1))
        nodes = [f"{ADDRESS}:{stack.enter_context(Door(sentinel.port, tls)).port}"]
        redis = {"url": "rediss:///0", "tls": _tls(authority), "sentinel": {"service": SERVICE, "nodes": nodes}}
        fleet = stack.enter_context(Fleet(redis, tmp_path))
        fleet.start("w")
        assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1

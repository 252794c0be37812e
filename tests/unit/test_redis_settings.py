"""What `redis` may be in the configuration: each mistake is told at once, and no secret with it."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import flowtilla
from certificates import Authority
from flowtilla.config import load, shown
from flowtilla.connection import connect, connect_async
from flowtilla.errors import ConfigurationError
from flowtilla.redis_settings import RedisSettings
from flowtilla.settings import Settings

SECRETS = ("s3cret-of-the-server", "s3cret-of-the-sentinels")
SENTINEL = {"service": "queue", "nodes": ["one:26379", "two"], "password": SECRETS[1]}


def complaint(redis: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(env={}, overrides={"redis": redis})
    assert not [secret for secret in SECRETS if secret in str(caught.value) + repr(caught.value)]
    return str(caught.value)


@pytest.mark.parametrize(
    ("redis", "said"),
    [
        ({"url": "redis://h:6379/zero"}, "redis.url: names no database"),
        ({"url": "redis://h:6379/0/1"}, "redis.url: names no database"),
        ({"url": "unix://"}, "redis.url: names no socket"),
        ({"url": "h:6379"}, "redis.url: is not a Redis URL"),
        ({"url": "redis://h", "tls": {"ca": "ca.pem"}}, "url is redis://: write rediss://"),
        ({"url": "rediss://h", "tls": {"key": "key.pem"}}, "redis.tls: key is the key of cert, so give cert too"),
        ({"url": "rediss://h", "tls": {"cacert": "ca.pem"}}, "redis.tls.cacert: unknown key; did you mean"),
        ({"url": "unix:///queue.sock", "sentinel": SENTINEL}, "sentinel finds servers on the network"),
        ({"sentinel": {"nodes": ["one"]}}, "redis.sentinel.service: is required"),
        ({"sentinel": SENTINEL | {"nodes": []}}, "redis.sentinel.nodes"),
        ({"sentinel": SENTINEL | {"nodes": ["one:port"]}}, "redis.sentinel.nodes: holds what is no address"),
        ({"sentinel": SENTINEL | {"nodes": [f"user:{SECRETS[0]}@one"]}}, "username and password beside nodes"),
        ({"sentinel": SENTINEL | {"nodes": ["redis://one:26379"]}}, "redis.sentinel.nodes: holds what is no address"),
        ({"sentinel": SENTINEL | {"password": [SECRETS[1]]}}, "redis.sentinel.password"),
        ({"sentinel": SENTINEL | {"master": "queue"}}, "redis.sentinel.master: unknown key"),
    ],
)
def test_a_mistake_is_told_with_its_path(redis: dict[str, Any], said: str) -> None:
    """In one sentence that says what to write, and without the secrets that stand beside it."""
    assert said in complaint(redis)


def test_secrets_are_shown_nowhere() -> None:
    """Neither in the `repr` of the settings, nor where they are printed, nor in that of a client."""
    redis = {"url": f"redis://user:{SECRETS[0]}@h/0", "sentinel": SENTINEL}
    settings = load(env={}, overrides={"redis": redis})
    with connect(settings.redis) as client:
        told = f"{settings!r} {shown(settings)} {client!r} {connect_async(settings.redis)!r}"
    assert not [secret for secret in SECRETS if secret in told]
    assert "user" in str(shown(settings)["redis"]["url"])


def test_nodes_are_hosts_and_ports() -> None:
    """Without a port it is a Sentinel's usual one; an IPv6 address stands in brackets."""
    settings = RedisSettings.model_validate({"sentinel": {"service": "q", "nodes": ["a", "b:1", "[::1]:2", "[::2]"]}})
    assert settings.sentinel is not None
    assert settings.sentinel.addresses == [("a", 26379), ("b", 1), ("::1", 2), ("::2", 26379)]


def test_user_password_and_database_of_the_url_hold_for_the_master() -> None:
    """Its host and port do not, and options in it do; the Sentinels have credentials of their own."""
    redis = {"url": f"redis://user:{SECRETS[0]}@ignored:1/3?health_check_interval=7", "sentinel": SENTINEL}
    with connect(RedisSettings.model_validate(redis), socket_timeout=4) as client:
        pool: Any = client.connection_pool
    options = {"username": "user", "password": SECRETS[0], "db": 3, "health_check_interval": 7, "socket_timeout": 4}
    assert pool.connection_kwargs.items() >= options.items()
    assert "host" not in pool.connection_kwargs
    asked = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"], one["password"]) for one in asked] == [
        ("one", 26379, SECRETS[1]),
        ("two", 26379, SECRETS[1]),
    ]


@pytest.mark.parametrize("open_", [connect, connect_async])
@pytest.mark.parametrize("sentinel", [None, SENTINEL])
@pytest.mark.parametrize("option", ["socket_timout=3", "db=first", "protocol=9"])
def test_an_option_that_does_not_exist_is_told_before_the_first_use(open_: Any, sentinel: Any, option: str) -> None:
    """Options of the URL are redis-py's; it would tell of a mistake only when it connects."""
    redis = RedisSettings.model_validate({"url": f"redis://:{SECRETS[0]}@h/?{option}", "sentinel": sentinel})
    with pytest.raises(ConfigurationError, match=r"redis\.url has an option that cannot be") as caught:
        open_(redis)
    assert SECRETS[0] not in str(caught.value)


def test_certificates_are_read_before_the_first_use(tmp_path: Path) -> None:
    """A file that is not there, is none, or whose key is encrypted or another's: the error names key and file."""
    authority = Authority(tmp_path)
    own, locked, other = authority.sign("own"), authority.sign("locked", password="pw"), authority.sign("other")
    none = tmp_path / "none.pem"
    none.write_text("no certificate")
    for key, tls in [
        ("ca", {"ca": tmp_path / "absent.pem"}),
        ("ca", {"ca": none}),
        ("cert", {"cert": none, "key": own.key}),
        ("cert", {"cert": own.cert, "key": other.key}),
        ("cert", {"cert": locked.cert, "key": locked.key}),
    ]:
        given = {name: str(file) for name, file in tls.items()}
        redis = RedisSettings.model_validate({"url": "rediss://h", "tls": given})
        with pytest.raises(ConfigurationError, match=rf"redis\.tls\.{key}: {given[key]} cannot be used"):
            connect(redis)
    fine = {"ca": str(authority.ca), "cert": str(own.cert), "key": str(own.key)}
    connect(RedisSettings.model_validate({"url": "rediss://h", "tls": fine})).close()


def test_a_clients_url_replaces_all_that_the_configuration_says_of_redis() -> None:
    """A URL names one server: neither Sentinels nor certificates of another are asked; a wrong one is told at once."""
    settings = Settings.model_validate({"redis": {"url": "rediss://h", "tls": {}, "sentinel": SENTINEL}})
    with flowtilla.Client("redis://other/1", settings=settings) as client:
        assert client.settings.redis == RedisSettings.model_validate({"url": "redis://other/1"})
    with pytest.raises(ConfigurationError, match="url: is not a Redis URL") as caught:
        flowtilla.Client(f"queue://:{SECRETS[0]}@h", settings=settings)
    assert SECRETS[0] not in str(caught.value)


def test_a_url_alone_is_enough() -> None:
    """As it always was."""
    for url in (
        "redis://h",
        "redis://h:1/",
        "redis://h/3",
        "rediss://u:p@h:1/0",
        "unix:///q.sock?db=1",
        "redis://h?db=2",
    ):
        connect(RedisSettings.model_validate({"url": url})).close()
    with pytest.raises(ValidationError):
        RedisSettings.model_validate({"url": "http://h"})

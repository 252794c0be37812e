"""The settings of the connection to Redis."""

import re
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from flowtilla.section import Section

#: Where a Sentinel listens if nothing else is said.
_SENTINEL_PORT = 26379


class TlsSettings(Section):
    """The certificates of a `rediss://` connection, as PEM files.

    `ca` is who signed the server's certificate, where the system does not know them. `cert` and `key` are what a server
    is shown that asks who is there; the key must not be encrypted.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    @model_validator(mode="after")
    def _key_has_its_certificate(self) -> "TlsSettings":
        if self.key is not None and self.cert is None:
            raise ValueError("key is the key of cert, so give cert too")
        return self


class SentinelSettings(Section):
    """How the master is found where Sentinels watch over several servers.

    `service` is what they call it, and `nodes` are their addresses, `host` or `host:port`. `username` and `password`
    are the Sentinels' own; those of the servers are in `redis.url`.
    """

    service: str = Field(min_length=1)
    nodes: tuple[str, ...] = Field(min_length=1)
    username: str | None = None
    password: SecretStr | None = None

    @field_validator("nodes")
    @classmethod
    def _are_addresses(cls, nodes: tuple[str, ...]) -> tuple[str, ...]:
        for node in nodes:
            _address(node)
        return nodes

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The nodes as host and port."""
        return [_address(node) for node in self.nodes]


class RedisSettings(Section):
    """Where the queue is.

    `url` may carry a password, so it is a secret: it never appears in a log, an error or a `repr`. With `sentinel`, the
    host and port of `url` count for nothing; its scheme, user, password and database do. `rediss://` holds for the
    Sentinels too.
    """

    url: SecretStr = SecretStr("redis://localhost:6379/0")
    tls: TlsSettings | None = None
    sentinel: SentinelSettings | None = None

    @field_validator("url")
    @classmethod
    def _is_a_redis_url(cls, url: SecretStr) -> SecretStr:
        # Nothing of the value is repeated: the part that is wrong may be the password.
        try:
            parts = urlsplit(url.get_secret_value())
            valid = parts.scheme in ("redis", "rediss", "unix") and (parts.port is None or parts.port > 0)
        except ValueError:
            valid = False
        if not valid:
            raise ValueError(
                "is not a Redis URL: write redis://, rediss:// or unix://, such as redis://:password@host:6379/0, "
                "with the characters / ? # @ of a password percent-encoded"
            )
        # Redis' own client would pass over what is no number and take database 0.
        if parts.scheme == "unix" and len(parts.path) < 2:
            raise ValueError("names no socket: write unix:///path/of/the.sock, with ?db=1 for another database than 0")
        if parts.scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
            raise ValueError("names no database: what follows the host is its number, such as redis://host:6379/0")
        return url

    @model_validator(mode="after")
    def _belong_together(self) -> "RedisSettings":
        if self.tls is not None and self.scheme != "rediss":
            raise ValueError(f"tls is for encrypted connections and url is {self.scheme}://: write rediss://")
        if self.sentinel is not None and self.scheme == "unix":
            raise ValueError("sentinel finds servers on the network and url is unix://: write redis:// or rediss://")
        return self

    @property
    def scheme(self) -> str:
        """How the URL begins: `redis`, `rediss` or `unix`."""
        return urlsplit(self.url.get_secret_value()).scheme


def _address(node: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{node}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.netloc != node or "@" in node:
        # Not repeated either: it may hold a password.
        raise ValueError("holds what is no address: write host or host:port, and username and password beside nodes")
    return host, port or _SENTINEL_PORT

"""Connections to the Redis of the settings, for all that talks to it: one server, or the master that Sentinels name."""

import re
import ssl
from typing import Any

import hiredis
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import MasterNotFoundError as AsyncMasterNotFoundError
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import ConnectionError, DataError, ReadOnlyError, RedisError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from flowtilla.errors import ConfigurationError
from flowtilla.redis_settings import RedisSettings, TlsSettings

#: Seconds that one Sentinel may take to answer; then the next is asked.
_ASK = 1.0

#: After this too a connection is closed, so that the next use makes one anew, to where name or Sentinels lead by
#: then: a server that has become a replica goes on answering, but takes nothing.
_LOST = [ReadOnlyError]


def connect(settings: RedisSettings, **options: Any) -> redis.Redis:
    """Returns a blocking client, which connects on first use and tries nothing twice.

    Args:
        settings: which Redis.
        options: more for redis-py's connections, such as `socket_timeout`.

    Raises:
        ConfigurationError: the URL has an option that does not exist, or a certificate cannot be read.
    """
    options = {"command_packer": _Packer(), **options}
    client: redis.Redis = _client(settings, options, redis.Redis, _Sentinels, Retry(NoBackoff(), 0))
    return client


def connect_async(settings: RedisSettings, **options: Any) -> redis.asyncio.Redis:
    """Returns an asyncio client; see `connect`."""
    kinds = redis.asyncio.Redis, _AsyncSentinels
    client: redis.asyncio.Redis = _client(settings, options, *kinds, AsyncRetry(NoBackoff(), 0))
    pool = client.connection_pool
    pool.connection_class = type("Connection", (_PackedInC, pool.connection_class), {})
    return client


def where(client: Any) -> str:
    """Returns which Redis a client is of, for people: never with a password."""
    pool = client.connection_pool
    options = pool.connection_kwargs
    database = f"(database {options.get('db') or 0})"
    if service := getattr(pool, "service_name", None):
        return f"{service!r}, which Sentinels watch over {database}"
    return f"{options.get('path') or ':'.join(map(str, _address(options)))} {database}"


class _Packer:
    """Writes commands with hiredis; redis-py looks at each argument before it does so, and on asyncio never does."""

    def pack(self, command: str, *args: Any) -> list[bytes]:
        """Returns a command, whose name may have two words, as it is sent."""
        try:
            return [hiredis.pack_command((*command.split(), *args))]
        except TypeError as error:
            raise DataError(*error.args) from error


class _PackedInC:
    """The same for an asyncio connection."""

    pack_command = _Packer.pack


class _Sentinels(Sentinel):
    """Sentinels that are asked and hung up on: on a line kept for the next question one that died is noticed late."""

    def discover_master(self, service_name: str) -> Any:
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError as error:
            raise _nobody_knows(self, service_name, error) from None
        finally:
            for one in self.sentinels:
                one.connection_pool.disconnect(inuse_connections=False)


class _AsyncSentinels(AsyncSentinel):
    """The same for asyncio."""

    async def discover_master(self, service_name: str) -> Any:
        try:
            return await super().discover_master(service_name)
        except AsyncMasterNotFoundError as error:
            raise _nobody_knows(self, service_name, error) from None
        finally:
            for one in self.sentinels:
                await one.connection_pool.disconnect(inuse_connections=False)


def _client(settings: RedisSettings, options: dict[str, Any], kind: Any, sentinels: Any, retry: Any) -> Any:
    """Returns a client of a kind, blocking or asyncio."""
    url, sentinel = settings.url.get_secret_value(), settings.sentinel
    options = {"retry": retry, "retry_on_error": _LOST, **_certificates(settings.tls), **options}
    try:
        if sentinel is None:
            client = kind.from_url(url, **options)
        else:
            # As `from_url` has it, what the URL says goes before the options.
            parsed = parse_url(url)  # type: ignore[no-untyped-call]
            options |= {name: value for name, value in parsed.items() if name not in _OF_ONE_SERVER}
            options["ssl"] = settings.scheme == "rediss"
            asked = {name: value for name, value in options.items() if name.startswith("ssl") or name == "retry"}
            asked |= {"socket_timeout": _ASK, "socket_connect_timeout": _ASK, "username": sentinel.username}
            asked["password"] = None if sentinel.password is None else sentinel.password.get_secret_value()
            found = sentinels(sentinel.addresses, sentinel_kwargs=asked)
            client = found.master_for(sentinel.service, kind, **options)
        # Now rather than at the first use: an option that does not exist is told of when a connection is made.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (TypeError, ValueError, RedisError) as error:
        raise ConfigurationError(f"redis.url has an option that cannot be: {error}") from None
    return client


#: What `parse_url` finds that does not hold for a master that Sentinels name.
_OF_ONE_SERVER = ("host", "port", "connection_class")


def _certificates(tls: TlsSettings | None) -> dict[str, str]:
    """Returns the options that name the certificates, once each was read."""
    if tls is None:
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    options = {}
    try:
        if tls.ca is not None:
            key, options["ssl_ca_certs"] = "ca", tls.ca
            context.load_verify_locations(tls.ca)
        if tls.cert is not None:
            key, options["ssl_certfile"] = "cert", tls.cert
            options |= {} if tls.key is None else {"ssl_keyfile": tls.key}
            # With a password, though a wrong one: without, OpenSSL asks for it at the terminal.
            context.load_cert_chain(tls.cert, tls.key, password="")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"redis.tls.{key}: {getattr(tls, key)} cannot be used: {error}") from None
    return options


def _address(options: dict[str, Any]) -> tuple[str, int]:
    return options.get("host", "localhost"), options.get("port", 6379)


def _nobody_knows(sentinels: Any, service: str, error: Exception) -> ConnectionError:
    """Returns the error that says so. redis-py's own is left out: in some versions it has the Sentinels' password."""
    nodes = (":".join(map(str, _address(one.connection_pool.connection_kwargs))) for one in sentinels.sentinels)
    why = sorted(set(re.findall(r"\b[A-Z]\w*Error\b", str(error))))
    return MasterNotFoundError(
        f"none of the Sentinels {', '.join(nodes)} knows a master {service!r} that is up"
        + (f" ({', '.join(why)})" if why else "")
    )

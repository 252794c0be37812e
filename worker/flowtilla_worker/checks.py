"""Looks, when a worker starts, whether its Redis is one that keeps what it is given."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from redis.exceptions import RedisError

from flowtilla.connection import where

_log = logging.getLogger("flowtilla.worker")

#: Before it, a script's error does not say what Redis refused, and no rule can let a user read and not write.
_OLDEST = (7, 0)


def check(redis: Any) -> None:
    """Says in the log which Redis this is, and what about it can lose runs.

    Args:
        redis: a blocking client.
    """
    try:
        info = redis.info()
    except RedisError as error:
        _log.info("Redis at %s tells nothing of itself, so nothing about it was checked: %s", where(redis), error)
        return
    _log.info("Redis at %s is %s", where(redis), _version(info))
    for warning in warnings(info):
        _log.warning("Redis at %s %s", where(redis), warning)


def warnings(info: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is not as it should be with a Redis whose INFO this is, and what to do."""
    mode = info.get("redis_mode") or info.get("server_mode")
    if mode == "sentinel":
        yield "is a Sentinel: name it in redis.sentinel.nodes, and in redis.sentinel.service what it watches over"
        return
    if mode == "cluster":
        yield "is a Redis Cluster, on which scripts over several keys fail: use one server, or one with replicas"
    if _numbers(info.get("redis_version")) < _OLDEST:
        yield f"is {_version(info)}: use 7.0 or newer, or Valkey"
    if info.get("role") == "slave":
        master = f"{info.get('master_host')}:{info.get('master_port')}"
        yield f"is a replica of {master}: redis.url must lead to the master, or redis.sentinel name who knows it"
    if info.get("aof_enabled") == 0:
        yield (
            "writes no append-only file, so runs it has accepted since its last snapshot, if it makes any, are lost "
            "when it stops: set `appendonly yes`"
        )
    if "err" in (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")):
        yield "could not write to its disk the last time: make room there; its log says more"
    if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
        yield (
            f"evicts when its memory is full ({policy}), and what it evicts is lost, queued runs too: "
            "set `maxmemory-policy noeviction`"
        )


def _version(info: Mapping[str, Any]) -> str:
    # Valkey says which Redis it stands for, and its own version beside.
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'of an unknown version')}"


def _numbers(version: Any) -> tuple[int, ...]:
    parts = str(version).split(".")[:2]
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else _OLDEST

"""What a fleet may leave behind, and what it may not: keys, files, processes."""

import time
from collections.abc import Collection, Iterator
from pathlib import Path

from redis import Redis

from flowtilla import keys

from .workload import LINES, QUEUES

#: The keys of the fleet itself, which are few and stay: sets of names, and when somebody looked for dead workers.
_OF_THE_FLEET = (keys.QUEUES, keys.NAMESPACES, keys.LOOKED, keys.WORKERS)
#: RQ's registries of ended runs, which its own maintenance clears every ten minutes; our index, cleared by the sweep.
_REGISTRIES = tuple(keys.registry(kind, "") for kind in ("finished", "failed", "canceled"))
#: What a run leaves in storage besides its artifacts.
_AREAS = ("results", "logs", "checkpoints", "staged")


def in_hand(redis: Redis) -> Iterator[str]:
    """Yields what is still in somebody's hands, or waits, when every run has ended."""
    if held := redis.zrange(keys.LEASES, 0, -1):
        yield f"leases of {held}"
    if damaged := redis.lrange(keys.DAMAGED, 0, -1):
        yield f"damaged entries: {damaged}"
    for queue in QUEUES:
        for kind in ("wip", "scheduled"):
            if members := redis.zrange(keys.registry(kind, queue), 0, -1):
                yield f"members of {kind}:{queue}: {members}"
    for line in LINES:
        if waiting := redis.lrange(line, 0, -1):
            yield f"queued in {line}: {waiting}"
    for limited in (keys.LIMITED, *redis.scan_iter(keys.limit("*")), *redis.scan_iter(keys.held("*"))):
        if redis.exists(limited):
            yield f"{limited} is there, and no run waits for a limit or has a place"


def lasting_keys(redis: Redis) -> Iterator[str]:
    """Yields the keys that would stay for ever and are not of the fleet itself."""
    for key in redis.scan_iter(count=1000):
        name = key.decode(errors="replace")
        if redis.ttl(key) == -1 and not _stays(name):
            yield f"key {name} never expires"


def _stays(name: str) -> bool:
    index = (keys.runs(""), keys.ENDED, f"{keys.WORKERS}:", *_REGISTRIES)
    return name in _OF_THE_FLEET or name.startswith(index)


def let_time_pass(redis: Redis, runs: Collection[str], storage: Path) -> Iterator[str]:
    """Ends the retention of all runs at once, lets the fleet sweep, and yields what of them is still there."""
    for member in redis.zrange(keys.ENDED, 0, -1):
        redis.zadd(keys.ENDED, {member: 0})
    for key in redis.scan_iter(count=1000):
        if redis.ttl(key) >= 0 and not key.decode().startswith(keys.worker("")):
            redis.delete(key)
    # The fleet sweeps once a minute. A run whose job was deleted while a sweep looked at it is due a minute later, and
    # the sweep after that may miss it by a moment.
    deadline = time.monotonic() + 200 + len(runs) / 25
    while redis.exists(keys.ENDED) and time.monotonic() < deadline:
        time.sleep(1)
    if left := redis.zrange(keys.ENDED, 0, -1, withscores=True):
        waits = [f"{member.decode()} for {due - time.time():.0f} s more" for member, due in left[:5]]
        yield f"{len(left)} runs whose retention has passed were not swept up: {', '.join(waits)}"
    for key in redis.scan_iter(count=1000):
        name = key.decode(errors="replace")
        if name.startswith((keys.RUN, keys.job(""), keys.results(""), keys.runs(""))):
            yield f"key {name} is left of runs that are gone"
    for area in _AREAS:
        if files := [path for path in (storage / area).rglob("*") if path.is_file()]:
            yield f"{len(files)} files are left in {area} of runs that are gone, such as {files[0]}"
    if versions := _unpublished(storage):
        yield f"{len(versions)} versions of artifacts are left that nobody published, such as {versions[0]}"


def _unpublished(storage: Path) -> list[Path]:
    """Returns the versions of artifacts that nobody published, and nobody will: their attempts ended badly."""
    # {namespace}/{name}/{version}/... beside {version}.json, once it was published.
    versions = [path for path in (storage / "artifacts").glob("*/*/*") if path.is_dir()]
    return [path for path in versions if not path.with_name(f"{path.name}.json").exists()]

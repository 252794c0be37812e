"""Anything: bytes, words and plain data that nobody expects, drawn at random."""

import json
import pickle
import random
import zlib
from typing import Any


def _words(text: str) -> list[str]:
    return text.split()


#: Every type that a key may have.
KINDS = ("string", "list", "set", "zset", "hash", "stream")

#: The keys that all runs share, by their type.
SHARED = {
    "flowtilla:leases": "zset",
    "flowtilla:ended": "zset",
    "flowtilla:runs:default": "zset",
    "flowtilla:namespaces": "set",
    "flowtilla:looked": "hash",
    "flowtilla:swept": "string",
    "flowtilla:damaged": "list",
    "flowtilla:claim:w": "string",
    "flowtilla:order:w": "string",
    "flowtilla:suspended:default": "string",
    "rq:queues": "set",
    "rq:workers": "set",
    "rq:workers:default": "set",
    "rq:worker:w": "hash",
    "rq:queue:default": "list",
    "rq:queue:odd": "list",
    "rq:suspended": "string",
}
_REGISTRIES = ("wip", "finished", "failed", "canceled", "scheduled", "deferred")
SHARED |= {f"rq:{kind}:{queue}": "zset" for kind in _REGISTRIES for queue in ("default", "odd")}

#: Functions that must never run: of a module that nothing allows, of Python's own, and what allowed modules imported.
TARGETS = _words("""
    attacker.called os.system os.mkdir posix.system subprocess.call builtins.eval builtins.exec
    antigravity.geohash pickle.loads shutil.rmtree webbrowser.open ctypes.CDLL pty.spawn runpy.run_path
    attacked_stages.not_a_stage attacked_stages.system attacked_stages.mkdir attacked_stages.os.system
    attacked_stages.__class__ attacked_stages.__loader__ attacked_stages.Path
    attacked_stages.plus.__globals__ attacked_jobs.system attacked_jobs.run attacked_jobs.__class__
    attacked_jobs.os.system attacked_jobs.eval flowtilla.artifacts.delete
    flowtilla.storage.checkpoints.load_checkpoint flowtilla_worker.main.run_worker
""")

WORDS = _words("""
    x null a b default odd w ../../outside/secret /etc/passwd .. a/b %2e%2e%2f 1e999 NaN -1 0 1-x +inf -inf
    1700000000 started queued finished failed canceled scheduled deferred stopped rate_limited running
    2026-01-01T00:00:00.000000Z 9999-12-31T23:59:59.999999Z yesterday
""")
WORDS += ["", "\ud800", "\0", "\n", "é" * 50, "x" * 5000, "9" * 5000, *TARGETS]

NUMBERS = [0, 1, -1, 2, 3, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"), True, False]

#: Fields of a job's hash: ours, RQ's own, and those with which RQ names code and addresses.
FIELDS = _words("""
    data signature origin namespace workflow stages attempt token status cancel log_parts strikes
    cluster_strikes losses crashes failures lost_worker suspect_since taken quarantined failure
    result_reference log_reference tags meta description created_at started_at ended_at enqueued_at
    worker_name last_heartbeat timeout result_ttl ttl retries_left retry_intervals failure_callback_name
    success_callback_name stopped_callback_name webhooks dependency_ids group_id rate_limit_key
    rate_limit_concurrency repeats_left repeat_intervals exc_info result
    first_began cluster_losses cluster_lost_by cluster_lost_at
""")


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return (os.mkdir, (self.folder,))


class Anything:
    """Draws anything.

    Args:
        draw: what it is drawn from.
        pickled: a folder that unpickling it would make.
        records: what a store says of things that it holds.
    """

    def __init__(self, draw: random.Random, pickled: str, records: list[dict[str, Any]]) -> None:
        self.draw = draw
        self.records = records
        self.folder = pickled
        self._pickles = [pickle.dumps(Evil(pickled), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]

    def data(self) -> bytes:
        """Returns anything."""
        match self.draw.randrange(6):
            case 0:
                return self.draw.choice(self._pickles)
            case 1:
                return zlib.compress(self.draw.choice([b" " * 3_000_000, *self._pickles]))
            case 2:
                return self.draw.choice(
                    [b"[" * 50_000, b'{"a":' * 50_000, b"\xff\xfe", bytes(range(256)), b"[" + b"1," * 9000]
                )
            case 3:
                return self.draw.randbytes(self.draw.randint(0, 40))
            case 4:
                return json.dumps(self.plain()).encode()
            case _:
                return self.word().encode(errors="replace")

    def word(self) -> str:
        """Returns any text."""
        return self.draw.choice(WORDS)

    def plain(self, depth: int = 0) -> Any:
        """Returns any plain data."""
        kind = self.draw.randrange(5 if depth < 3 else 3)
        if kind == 0:
            return self.draw.choice(NUMBERS)
        if kind == 1:
            return self.word()
        if kind == 2:
            return self.draw.choice([None, self.draw.choice(self.records)])
        if kind == 3:
            return [self.plain(depth + 1) for _ in range(self.draw.randint(0, 3))]
        return {self.word(): self.plain(depth + 1) for _ in range(self.draw.randint(0, 3))}

    def changed(self, data: Any) -> Any:
        """Returns plain data with something in it replaced, removed or added."""
        if not isinstance(data, (dict, list)) or not data or self.draw.random() < 0.1:
            return self.plain()
        key = self.draw.choice(list(data) if isinstance(data, dict) else range(len(data)))
        copy: Any = data.copy()
        match self.draw.randrange(8):
            case 0:
                del copy[key]
            case 1 if isinstance(copy, dict):
                copy[self.word()] = self.plain()
            case _:
                copy[key] = self.changed(copy[key])
        return copy

    def perhaps_changed(self, data: Any) -> bytes:
        """Returns plain data as JSON, with a few changes, or anything else."""
        if self.draw.random() < 0.1:
            return self.data()
        for _ in range(self.draw.choice([0, 0, 0, 1, 2])):
            data = self.changed(data)
        return json.dumps(data).encode()

    def number(self) -> bytes:
        """Returns a number, or what is none."""
        return str(self.draw.choice(NUMBERS)).encode() if self.draw.random() < 0.8 else self.data()

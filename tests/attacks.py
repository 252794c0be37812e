"""What somebody who can write anything to Redis might write, drawn at random from a seed."""

import json
import random
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

import flowtilla
from anything import FIELDS, KINDS, SHARED, TARGETS, Anything
from flowtilla.errors import FlowtillaError
from flowtilla.run import Run


class Attacker:
    """Writes to Redis whatever it likes.

    Args:
        redis: where to.
        seed: what its choices are drawn from.
        pickled: a folder that unpickling what it writes would make.
        honest, slow: return the job's fields of an honest run by its id; a slow one is there to be attacked meanwhile.
        records: honest records of checkpoints, results and logs of other runs, and of this store's artifacts.
    """

    def __init__(
        self,
        redis: "Redis[Any]",
        seed: int,
        pickled: str,
        honest: Callable[[str], dict[str, Any]],
        slow: Callable[[str], dict[str, Any]],
        records: list[dict[str, Any]],
    ) -> None:
        self.redis = redis
        self.draw = random.Random(seed)
        self.honest, self.slow = honest, slow
        self.any = Anything(self.draw, pickled, records)
        self.runs: list[str] = []
        self._slow: list[str] = []
        self.counts: dict[str, int] = {}
        self._attacks = [
            *[self.job_fields, self.message, self.message_bytes, self.targets, self.earlier, self.other_types] * 3,
            *[self.running, self.shared_members, self.shared_types, self.published, self.queued, self.rq_started] * 2,
            *[self.worker_record, self.ended, self.scripts],
        ]

    def attack(self) -> Callable[[], object]:
        """Attacks once, and returns what takes back what no fleet could work with."""
        attack = self.draw.choice(self._attacks)
        self.counts[attack.__name__] = self.counts.get(attack.__name__, 0) + 1
        with suppress(ResponseError):  # the key that it would add to is of another type by now
            return attack() or _nothing
        return _nothing

    def job_fields(self) -> None:
        """A run some of whose fields are anything."""
        job = self.honest(self._run_id())
        for name in self.draw.sample(FIELDS, self.draw.randint(1, 3)):
            job[name] = self.any.data()
        self._enqueue(job)

    def message(self) -> None:
        """A run whose message is JSON with something changed."""
        job = self.honest(self._run_id())
        call = json.loads(_unpacked(job["data"]))
        for _ in range(self.draw.randint(1, 3)):
            call = self.any.changed(call)
        data = json.dumps(call).encode()
        self._enqueue(job | {"data": zlib.compress(data) if self.draw.random() < 0.3 else data})

    def targets(self) -> None:
        """A run of functions that must not run, with arguments that each of them would take."""
        job = self.honest(self._run_id())
        function, instance, args, message = json.loads(_unpacked(job["data"]))
        for stage in message["workflow"]["spec"]["stages"]:
            stage["target"] = self.draw.choice(TARGETS)
        command = f"mkdir {self.any.folder}"
        message["input"] = {"x": 1, "command": command, "path": self.any.folder, "args": command.split(), "s": "1"}
        self._enqueue(job | {"data": json.dumps([function, instance, args, message])})

    def message_bytes(self) -> None:
        """A run whose message has bytes changed, cut or doubled, or is none."""
        job = self.honest(self._run_id())
        data = bytearray(job["data"])
        for _ in range(self.draw.randint(0, 4)):
            data[self.draw.randrange(len(data))] = self.draw.randrange(256)
        place = self.draw.randrange(len(data))
        self._enqueue(
            job | {"data": self.draw.choice([bytes(data), bytes(data[:place]), bytes(data) * 2, self.any.data()])}
        )

    def earlier(self) -> None:
        """A run that seems to have had an attempt, which left anything."""
        run_id = self._run_id()
        job = self.honest(run_id) | {"attempt": self.draw.choice([1, 2, b"x", 10**6])}
        record = {"state": "finished", "done": 1, "total": 1, "attempt": 1, "started": 1.0, "ended": 2.0, "size": 3}
        record["artifacts"] = self.draw.choices(self.any.records, k=self.draw.randint(0, 1))
        stages, values = {}, {}
        for name in ("a", "b"):
            kept = self.draw.choice(
                [
                    {"value": 5},
                    {"checkpoint": self._record(run_id), "indexes": None},
                    {"reference": {"artifact": "x", "format": "json", "size": 1, "record": self._record(run_id)}},
                ]
            )
            stages[name] = self.any.perhaps_changed(record)
            values[name] = self.any.perhaps_changed(kept)
        if self.draw.random() < 0.5:
            job["log_parts"] = self.any.perhaps_changed([{"record": self._record(run_id), "until": 1}])
        line = {"stage": "a", "item": None, "attempt": 1, "time": 1.0, "host": "h", "source": "s", "level": "INFO"}
        line["message"] = "hello"
        self.redis.hset(f"flowtilla:run:{run_id}:stages", mapping=stages)
        self.redis.hset(f"flowtilla:run:{run_id}:values", mapping=values)
        self.redis.xadd(f"flowtilla:run:{run_id}:log", {"line": self.any.perhaps_changed(line), "n": self.any.number()})
        self._enqueue(job)

    def other_types(self) -> None:
        """A run one of whose keys is of another type."""
        run_id = self._run_id()
        self._enqueue(self.honest(run_id) | {"attempt": self.draw.randint(0, 1)})
        self._put(self.draw.choice(_keys_of(run_id)), self.draw.choice(KINDS))

    def running(self) -> None:
        """Something happens to the keys of a run that is being driven, or perhaps has just ended."""
        if self.draw.random() < 0.4 or not self._slow:
            self._slow.append(self._run_id())
            self._enqueue(self.slow(self._slow[-1]))
            return
        run_id = self.draw.choice(self._slow[-3:])
        key = self.draw.choice(_keys_of(run_id))
        match self.draw.randrange(3):
            case 0:
                self.redis.delete(key)
            case 1:
                self._put(key, self.draw.choice(KINDS))
            case _:
                self.redis.hset(f"rq:job:{run_id}", self.draw.choice(FIELDS), self.any.data())

    def shared_members(self) -> Callable[[], object]:
        """Anything among what a shared key holds."""
        switches = [name for name in SHARED if "suspended" in name or "order" in name]
        key = self.draw.choice([name for name in SHARED if name not in switches])
        self._add(key, SHARED[key])
        return lambda: self.redis.delete("flowtilla:looked") if key == "flowtilla:looked" else None

    def shared_types(self) -> Callable[[], object]:
        """A shared key is of another type, for a while: no fleet can work with that, but it must outlive it."""
        key = self.draw.choice(list(SHARED))
        self._put(key, self.draw.choice(KINDS))
        return lambda: self.redis.delete(key)

    def published(self) -> None:
        """Anything on the channels that workers hear; but for RQ's own command to shut down, which is obeyed."""
        channel = self.draw.choice(["rq:pubsub:w", "flowtilla:wake:default", "flowtilla:wake:odd"])
        command = {"command": self.draw.choice(["stop-job", "kill-horse", "run", *TARGETS]), "job_id": self.any.word()}
        self.redis.publish(channel, self.draw.choice([json.dumps(self.any.changed(command)).encode(), self.any.data()]))

    def queued(self) -> None:
        """Anything in a queue."""
        self._push(self.draw.choice(["default", "odd"]), self.any.data())

    def rq_started(self) -> None:
        """A job that RQ's maintenance would take for abandoned, with code and addresses for what it does then."""
        job_id = self._run_id()
        job = self.honest(job_id) | {"status": "started", "timeout": "1", "started_at": "2026-01-01T00:00:00.000000Z"}
        callbacks = ("failure_callback_name", "success_callback_name", "stopped_callback_name")
        job |= {name: self.draw.choice(TARGETS) for name in callbacks}
        job["webhooks"] = json.dumps([{"url": "http://127.0.0.1:9/attacked", "events": ["failed"]}])
        job["token"] = "1-x"
        self.redis.hset(f"rq:job:{job_id}", mapping=_encoded(job))
        self.redis.zadd(
            f"rq:wip:{self.draw.choice(['default', 'odd'])}", {self.draw.choice([job_id, f"{job_id}:1-x"]): 1}
        )

    def worker_record(self) -> None:
        """Anything in the worker's own record, or no record."""
        if self.draw.random() < 0.2:
            self.redis.delete("rq:worker:w")
        else:
            names = ["state", "last_heartbeat", "birth", "death", "current_job", "lease", "pid", "queues", "ending"]
            self.redis.hset("rq:worker:w", self.draw.choice(names), self.any.data())

    def ended(self) -> None:
        """Runs of anywhere whose files are said to be over."""
        self.redis.zadd("flowtilla:ended", {f"{self.any.word()}/{self.any.word()}".encode(errors="replace"): 1})

    def scripts(self) -> None:
        """Redis forgets its scripts."""
        self.redis.script_flush()

    def _record(self, run_id: str) -> dict[str, Any]:
        """Returns the record of something that another run stored, perhaps with this run's name on it."""
        mine = {"name": run_id, "run_id": run_id, "namespace": self.draw.choice(["default", "other"])}
        named = self.draw.choice([[], list(mine), self.draw.sample(list(mine), 2)])
        return self.draw.choice(self.any.records) | {name: mine[name] for name in named}

    def _run_id(self) -> str:
        run_id = f"default--attack-{len(self.runs)}"
        self.runs.append(run_id)
        return run_id

    def _enqueue(self, job: dict[str, Any]) -> None:
        run_id = self.runs[-1]
        self.redis.hset(f"rq:job:{run_id}", mapping=_encoded(job))
        self.redis.zadd("flowtilla:runs:default", {run_id: 1})
        self._push("default", run_id)

    def _push(self, queue: str, member: str | bytes) -> None:
        self.redis.rpush(f"rq:queue:{queue}", member)
        # Else an idle worker looks within a second, and the test would take that long each time.
        self.redis.publish(f"flowtilla:wake:{queue}", "")

    def _put(self, key: str, kind: str) -> None:
        self.redis.delete(key)
        self._add(key, kind)

    def _add(self, key: str, kind: str) -> None:
        member: bytes = self.any.data() if self.draw.random() < 0.5 else self.any.word().encode(errors="replace")
        match kind:
            case "string":
                self.redis.set(key, member)
            case "list":
                self.redis.rpush(key, member)
            case "set":
                self.redis.sadd(key, member)
            case "zset":
                self.redis.zadd(key, {member: self.draw.choice([0, 1, -1e300, 1e300, float("inf"), 1.7e9, 1.7e12])})
            case "hash":
                names = ["at", "patient_until", "last_heartbeat", "death", "status", self.any.word()]
                self.redis.hset(key, self.draw.choice(names).encode(errors="replace"), member)  # type: ignore[arg-type]
            case _:
                self.redis.xadd(key, {b"line": member, b"n": self.any.number(), b"type": b"1", b"return_value": member})


def look_at(client: flowtilla.Client, run_id: str) -> None:
    """Reads a run in every way that a client can: what was attacked is data, or one of our errors."""
    run = Run(run_id, client._redis, client.settings)
    ways: list[Callable[[], object]] = [
        client.records,
        client.workers,
        lambda: (run.record, run.progress, run.record.to_error(), [stage.seconds for stage in run.stages.values()]),
        # A result that is not there is waited for, which takes Redis a tenth of a second at least.
        lambda: run.result(timeout=0.001) if client._redis.exists(f"rq:results:{run_id}") else None,
        lambda: [f"{line}".encode() for line in run.logs()],
        lambda: [artifact.read() for artifact in run.artifacts.values()],
        run.cancel,
        run.retry,
    ]
    for way in ways:
        with suppress(FlowtillaError):
            way()


def _nothing() -> None:
    """Takes nothing back."""


def _keys_of(run_id: str) -> list[str]:
    run = f"flowtilla:run:{run_id}"
    return [f"rq:job:{run_id}", f"rq:results:{run_id}", f"{run}:stages", f"{run}:values", f"{run}:log"]


def _encoded(job: dict[str, Any]) -> dict[Any, Any]:
    return {name: value.encode(errors="replace") if isinstance(value, str) else value for name, value in job.items()}


def _unpacked(data: bytes) -> bytes:
    return data if data[:1] == b"[" else zlib.decompress(data)

"""With keys, a worker runs what a holder of a key submitted, and goes on from what a holder of a key committed."""

import asyncio
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

import flowtilla
from flowtilla import keys
from flowtilla.enqueue import enqueue
from flowtilla.errors import RunFailed
from flowtilla.run import Run
from flowtilla.settings import ExecutorSettings, Settings
from flowtilla.steps import drive
from flowtilla.submission import prepare
from flowtilla_executors.registry import create
from flowtilla_worker.plan.catalog import Catalog
from flowtilla_worker.worker import Worker

OLD, NEW = secrets.token_hex(32), secrets.token_hex(32)


def mark(text: str) -> None:
    with Path(flowtilla.context().config["folder"], "ran").open("a") as file:
        file.write(f"{text}\n")


def first(x: int) -> int:
    mark(f"first {x}")
    return x + 1


def large(x: int) -> list[int]:
    mark("large")
    return [x] * 100_000


def second(value: Any) -> Any:
    mark(f"second {value if isinstance(value, int) else len(value)}")
    if Path(flowtilla.context().config["folder"], "broken").exists():
        raise ValueError("it is broken")
    return value if isinstance(value, int) else len(value)


class House:
    """One Redis, in this process, and what producers and workers do with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = fakeredis.FakeServer()
        self.redis = self.blocking()

    def blocking(self, patience: float | None = None) -> Any:
        return fakeredis.FakeRedis(server=self.server)

    def asyncio(self, patience: float | None = None) -> Any:
        return fakeredis.FakeAsyncRedis(server=self.server)

    def settings(self, signing: dict[str, Any] | None = None) -> Settings:
        return Settings.model_validate({"storage": {"base_path": str(self.folder)}, "signing": signing or {}})

    def submit(self, signing: dict[str, Any] | None, begin: Callable[..., Any] = first, **options: Any) -> Run:
        stages = [
            {"name": "a", "target": begin, "checkpoint": True},
            {"name": "b", "target": second, "depends_on": ["a"]},
        ]
        options = {"input": {"x": 1}, "config": {"folder": str(self.folder)}} | options
        submission = prepare(self.settings(signing), flowtilla.Workflow("signed", stages), **options)
        drive(enqueue(submission), self.redis)
        return self.run(submission.run_id)

    def run(self, run_id: str) -> Run:
        return Run(run_id, self.redis, self.settings())

    def work(self, signing: dict[str, Any] | None, *queues: str) -> None:
        """Lets a worker work until the queues are empty."""
        settings = self.settings(signing)
        own = settings.services.worker.model_copy(update={"queues": queues or ("default",)})
        settings = settings.model_copy(update={"services": settings.services.model_copy(update={"worker": own})})
        executor = create(ExecutorSettings.model_validate({"target": "local", "mode": "threads"}))
        asyncio.run(Worker(settings, executor, Catalog(allowed_targets=["*"]), self).serve(burst=True))  # type: ignore[arg-type]

    @property
    def ran(self) -> list[str]:
        """What ran, in order."""
        file = self.folder / "ran"
        return file.read_text().splitlines() if file.exists() else []

    def fails_first(self, signing: dict[str, Any] | None, begin: Callable[..., Any] = first, **options: Any) -> Run:
        """Submits a run and lets a worker do it, but for its second stage, which fails."""
        (self.folder / "broken").touch()
        run = self.submit(signing, begin, **options)
        self.work(signing)
        (self.folder / "broken").unlink()
        assert run.state == "failed"
        return run

    def job(self, run_id: str) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = self.redis.hgetall(keys.job(run_id))
        return found


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def signing(active: str = "new", **more: Any) -> dict[str, Any]:
    return {"keys": {"new": NEW}, "active": active} | more


BOTH = {"keys": {"old": OLD, "new": NEW}, "active": "new"}
ONLY_OLD = {"keys": {"old": OLD}, "active": "old"}


def refused(house: House, run: Run, said: str) -> None:
    """Makes sure that a run was refused, and that no function ran."""
    with pytest.raises(RunFailed, match=said) as caught:
        run.result(timeout=5)
    assert caught.value.error == "flowtilla.errors.NotGenuine"
    assert house.ran == []


def test_a_signed_run_is_done(house: House) -> None:
    """By a worker that knows the key, whichever signs there, and by one that has no keys at all."""
    runs = [house.submit(ONLY_OLD), house.submit(signing())]
    house.work(BOTH)
    runs.append(house.submit(signing()))
    house.work(None)
    assert [run.result(timeout=5) for run in runs] == [2, 2, 2]


def test_an_unsigned_run_ends_before_anything_of_it_is_read(house: House) -> None:
    """It is failed, with what to do about it, and no function ran; unless the settings let it pass."""
    run = house.submit(None)
    house.work(signing())
    refused(house, run, "has no signature.*same `signing` settings")
    lenient = house.submit(None)
    house.work(signing(required=False))
    assert lenient.result(timeout=5) == 2


def test_a_run_signed_with_another_key_is_refused(house: House) -> None:
    """Whether its id is not known, or known with another secret."""
    unknown = house.submit(ONLY_OLD)
    house.work(signing())
    refused(house, unknown, "key 'old', and the keys known here are new")
    guessed = house.submit({"keys": {"new": secrets.token_hex(32)}, "active": "new"})
    house.work(signing())
    refused(house, guessed, "the secret differs here")


@pytest.mark.parametrize("changed", ["run id", "namespace", "queue", "message"])
def test_nothing_of_a_signed_run_can_be_exchanged(house: House, changed: str) -> None:
    """A copy under another id, in another namespace or queue, or with another message, runs nothing."""
    run = house.submit(signing(), run_id="one")
    job = house.job(run.id)
    house.redis.delete(keys.job(run.id), keys.queue("default"))
    other, queue = run.id, "default"
    if changed == "run id":
        other = "default--two"
    elif changed == "namespace":
        other = "elsewhere--one"
    elif changed == "queue":
        queue = "urgent"
    else:
        job[b"data"] = house.job(house.submit(signing(), run_id="three", input={"x": 9}).id)[b"data"]
        house.redis.delete(keys.queue("default"))
    house.redis.hset(keys.job(other), mapping=job)
    house.redis.rpush(keys.queue(queue), other)
    house.work(signing(), queue)
    refused(house, house.run(other), "something was changed")


def test_the_namespace_of_id_and_message_must_agree(house: House) -> None:
    """Without keys too: results and logs go where the id says, artifacts where the message says."""
    run, other = house.submit(None), "elsewhere--1"
    house.redis.rename(keys.job(run.id), keys.job(other))
    house.redis.rpush(keys.queue("default"), other)
    house.work(None)
    with pytest.raises(RunFailed, match="of namespace 'default', and its id of 'elsewhere'"):
        house.run(other).result(timeout=5)
    assert house.ran == []


def test_rqs_own_requeue_keeps_the_signature_good(house: House) -> None:
    """RQ compresses the message anew; what is signed is what it holds."""
    run = house.fails_first(signing())
    FailedJobRegistry("default", connection=house.redis, serializer=JSONSerializer).requeue(run.id)
    house.work(signing())
    assert run.result(timeout=5) == 2


@pytest.mark.parametrize("begin", [first, large])
@pytest.mark.parametrize("keyed", [None, signing(), BOTH])
def test_what_was_committed_is_not_run_again(house: House, begin: Callable[..., Any], keyed: Any) -> None:
    """Signed with the key of now or an earlier one, as value or checkpoint, it is taken up by the next attempt."""
    run = house.fails_first(ONLY_OLD if keyed is BOTH else keyed, begin)
    run.retry()
    house.work(keyed)
    assert run.result(timeout=5) == (2 if begin is first else 100_000)
    assert sum(one.startswith(begin.__name__) for one in house.ran) == 1


def test_signatures_are_no_burden_once_the_keys_are_gone(house: House) -> None:
    """A worker whose keys were taken away goes on from what was signed."""
    run = house.fails_first(signing())
    run.retry()
    house.work(None)
    assert run.result(timeout=5) == 2
    assert house.ran == ["first 1", "second 2", "second 2"]


@pytest.mark.parametrize("keep_signature", [True, False])
def test_a_value_that_no_worker_committed_is_not_used(house: House, keep_signature: bool) -> None:
    """The stage runs again instead: whoever writes to Redis gives no stage its arguments."""
    run = house.fails_first(signing())
    signature = house.redis.hget(keys.values(run.id), "a").partition(b"\n")[0] if keep_signature else b""
    house.redis.hset(keys.values(run.id), "a", signature + b'\n{"value":666}')
    run.retry()
    house.work(signing())
    assert run.result(timeout=5) == 2
    assert house.ran == ["first 1", "second 2", "first 1", "second 2"]


def test_without_keys_such_a_value_is_used(house: House) -> None:
    """What signing is for: the test above can fail."""
    run = house.fails_first(None)
    house.redis.hset(keys.values(run.id), "a", '{"value":666}')
    run.retry()
    house.work(None)
    assert run.result(timeout=5) == 666


def test_values_of_another_message_or_stage_are_not_used(house: House) -> None:
    """A run of the same id with other input begins anew, and a stage's value is no other stage's."""
    run = house.fails_first(signing(), run_id="daily")
    kept, stages = (house.redis.hgetall(key(run.id)) for key in (keys.values, keys.stages))
    for key in (keys.job, keys.values, keys.stages, keys.results):
        house.redis.delete(key(run.id))
    house.submit(signing(), run_id="daily", input={"x": 5})
    house.redis.hset(keys.job(run.id), "attempt", 1)
    house.redis.hset(keys.stages(run.id), mapping=stages | {b"b": stages[b"a"]})
    house.redis.hset(keys.values(run.id), mapping=kept | {b"b": kept[b"a"]})
    house.work(signing())
    assert run.result(timeout=5) == 6
    assert house.ran[2:] == ["first 5", "second 6"]


def test_records_are_readable_with_their_signatures(house: House) -> None:
    """Clients, which may have no keys, read what became of each stage."""
    run = house.submit(signing())
    house.work(signing())
    assert house.redis.hget(keys.stages(run.id), "a").startswith(b"new:")
    assert {name: str(stage.state) for name, stage in run.stages.items()} == {"a": "finished", "b": "finished"}
    assert json.loads(house.job(run.id)[b"meta"])["progress"] == "2/2 stages"

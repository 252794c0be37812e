"""`flowtilla worker drain`, `suspend` and `resume`: for a worker, a queue, the fleet."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import rq
from redis import Redis
from rq.suspension import is_suspended
from rq.suspension import resume as rq_resume
from rq.suspension import suspend as rq_suspend
from typer.testing import CliRunner, Result

from fleet import Fleet, until
from flowtilla import AsyncClient
from flowtilla.cli.app import app
from flowtilla.workers import WorkerRecord

Tell = Callable[..., Result]


@pytest.fixture
def tell(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Runs `flowtilla worker ...` as an operator would."""
    monkeypatch.setenv("FLOWTILLA__REDIS__URL", fleet.url)
    return lambda *words: CliRunner().invoke(app, ["worker", *words])


def shown(fleet: Fleet) -> dict[str, str]:
    """Returns the state of each live worker."""
    return {worker.name: worker.state for worker in fleet.client.workers()}


def seen_by_rq(redis: Redis) -> set[str]:
    """Returns what RQ's own tools say of the workers."""
    return {str(worker.get_state()) for worker in rq.Worker.all(connection=redis)}


def keeps_waiting(run: Any, seconds: float = 1.5) -> bool:
    """Whether a run is not taken for longer than a worker needs to look."""
    with pytest.raises(TimeoutError):
        run.wait(timeout=seconds)
    return bool(run.state == "queued")


def test_a_suspended_worker_takes_nothing_and_finishes_what_it_has(fleet: Fleet, redis: Redis, tell: Tell) -> None:
    """Its run goes on; another worker has the new ones; RQ and we call it suspended; then it is let go on."""
    fleet.start("one")
    run = fleet.submit({"name": "gate"})
    fleet.begun()

    told = tell("suspend", "one", "--json")

    assert [(one["name"], one["state"]) for one in json.loads(told.stdout)] == [("one", "suspended")]
    waits = fleet.submit({"name": "nothing"})
    assert keeps_waiting(waits)
    fleet.open_gate()
    assert run.wait(timeout=30) == "finished"
    until(lambda: seen_by_rq(redis) == {"suspended"})
    fleet.start("two")
    assert waits.wait(timeout=30) == "finished"
    assert waits.record.worker == "two"
    fleet.kill("two", signal.SIGTERM)
    fleet.ended("two")

    again = fleet.submit({"name": "nothing"})
    assert shown(fleet) == {"one": "suspended"}
    assert keeps_waiting(again)
    assert tell("resume", "one").exit_code == 0
    assert again.wait(timeout=30) == "finished"
    until(lambda: seen_by_rq(redis) == {"idle"})


def test_nobody_takes_runs_from_a_suspended_queue(fleet: Fleet, redis: Redis, tell: Tell) -> None:
    """Not a worker that was there, nor one that comes later; its other queues it serves."""
    queues = '["low", "default"]'
    fleet.start("one", queues=queues)
    assert tell("suspend", "--queue", "low").exit_code == 0
    low, other = fleet.submit({"name": "nothing"}, queue="low"), fleet.submit({"name": "nothing"})
    fleet.start("two", queues=queues)

    assert other.wait(timeout=30) == "finished"
    assert keeps_waiting(low)
    assert {(worker.state, worker.suspended) for worker in fleet.client.workers()} == {("idle", ("low",))}
    listed = CliRunner().invoke(app, ["workers"]).stdout
    assert listed.count("low (suspended),default") == 2

    assert tell("resume", "--queue", "low").exit_code == 0
    assert low.wait(timeout=30) == "finished"
    assert {worker.suspended for worker in fleet.client.workers()} == {()}


def test_the_fleets_switch_is_rqs(fleet: Fleet, redis: Redis, tell: Tell) -> None:
    """`--all` sets and lifts what `rq suspend` and `rq resume` do, and each shows what the other did."""
    fleet.start("one")
    fleet.start("two")

    assert tell("suspend", "--all").exit_code == 0
    run = fleet.submit({"name": "nothing"})
    assert is_suspended(redis)
    assert keeps_waiting(run)
    assert shown(fleet) == {"one": "suspended", "two": "suspended"}
    until(lambda: seen_by_rq(redis) == {"suspended"})
    rq_resume(redis)
    assert run.wait(timeout=30) == "finished"

    rq_suspend(redis)
    assert shown(fleet) == {"one": "suspended", "two": "suspended"}
    tell("suspend", "one", "--queue", "default")
    assert tell("resume", "--all").exit_code == 0
    assert not is_suspended(redis)
    assert fleet.submit({"name": "nothing"}).wait(timeout=30) == "finished"
    assert shown(fleet)["one"] != "suspended"
    assert redis.keys("flowtilla:order:*") + redis.keys("flowtilla:suspended:*") == []


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_drained_worker_finishes_what_it_has_and_ends(
    fleet: Fleet, redis: Redis, tell: Tell, concurrency: int
) -> None:
    """It takes nothing more, though it has room or not; its run has all the time it needs; the exit code is 0."""
    fleet.start("one", grace="0s", concurrency=concurrency)
    run = fleet.submit({"name": "gate"})
    fleet.begun()

    assert tell("drain", "one").exit_code == 0

    assert shown(fleet) == {"one": "draining"}
    later = fleet.submit({"name": "nothing"})
    until(lambda: "told to drain" in fleet.said("one"))
    assert keeps_waiting(later)
    fleet.open_gate()
    assert run.wait(timeout=30) == "finished"
    assert fleet.ended("one") == 0
    assert (run.record.attempt, later.state) == (1, "queued")
    # Its name is nobody's order.
    assert redis.keys("flowtilla:order:*") == []
    fleet.start("one")
    assert later.wait(timeout=30) == "finished"


def test_a_drain_can_be_taken_back(fleet: Fleet, tell: Tell) -> None:
    """As long as the worker has runs in hand it can be told to go on."""
    fleet.start("one")
    run = fleet.submit({"name": "gate"})
    fleet.begun()
    tell("drain", "one")
    until(lambda: "told to drain" in fleet.said("one"))

    assert tell("resume", "one").exit_code == 0

    assert fleet.submit({"name": "nothing"}).wait(timeout=30) == "finished"
    fleet.open_gate()
    assert run.wait(timeout=30) == "finished"
    assert fleet.submit({"name": "nothing"}).wait(timeout=30) == "finished"


def test_a_draining_worker_can_still_be_stopped(fleet: Fleet, tell: Tell) -> None:
    """SIGTERM then is what it always is: the run goes back when its time is over."""
    fleet.start("one", grace="3s")
    run = fleet.submit({"name": "gate"})
    fleet.begun()
    tell("drain", "one")
    until(lambda: "told to drain" in fleet.said("one"))

    fleet.kill("one", signal.SIGTERM)

    assert fleet.ended("one", seconds=10) == 0
    assert run.state == "queued"


def test_a_worker_without_a_cluster_can_be_drained(fleet: Fleet, tell: Tell) -> None:
    """It waits for no cluster to hear of it."""
    fleet.start("one", executor={"target": "dask", "cluster_address": "tcp://127.0.0.1:1"})
    until(lambda: fleet.client.workers())

    assert tell("drain", "one").exit_code == 0

    assert fleet.ended("one") == 0


def test_the_workers_of_a_queue_are_drained(fleet: Fleet, tell: Tell) -> None:
    """Those that work on it, and no others."""
    fleet.start("both", queues='["high", "default"]')
    fleet.start("other", queues='["default"]')

    told = tell("drain", "--queue", "high", "--json")

    assert [one["name"] for one in json.loads(told.stdout)] == ["both"]
    assert fleet.ended("both") == 0
    assert shown(fleet) == {"other": "idle"}


def test_a_supervised_worker_that_was_drained_stays_down(fleet: Fleet, tell: Tell) -> None:
    """Its supervisor keeps the others running, and ends well when all are down."""
    fleet.start("fleet", "-n", "2")
    until(lambda: len(shown(fleet)) == 2)

    tell("drain", "fleet-1")
    until(lambda: "worker fleet-1 was drained: it stays down" in fleet.said("fleet"))
    assert list(shown(fleet)) == ["fleet-2"]
    assert fleet.submit({"name": "nothing"}).wait(timeout=30) == "finished"

    tell("drain", "--all")
    assert fleet.ended("fleet") == 0
    assert "starting it again" not in fleet.said("fleet")


@pytest.mark.parametrize(("verb", "seen"), [("drain", "stays down"), ("suspend", "told to suspend")])
def test_what_a_worker_was_told_outlives_its_crash(
    fleet: Fleet, redis: Redis, tell: Tell, verb: str, seen: str
) -> None:
    """kill -9 of a supervised worker: the one that is started in its place is told the same."""
    fleet.start("fleet", "-n", "2")
    until(lambda: len(shown(fleet)) == 2)
    run = fleet.submit({"name": "gate"})
    fleet.begun()
    name = run.record.worker or ""
    tell(verb, name)
    until(lambda: f"told to {verb}" in fleet.said("fleet"))

    pid = redis.hget(f"rq:worker:{name}", "pid")
    os.kill(int(pid or 0), signal.SIGKILL)

    if verb == "drain":
        until(lambda: f"worker {name}-r1 was drained: it stays down" in fleet.said("fleet"))
    else:
        until(lambda: shown(fleet).get(f"{name}-r1") == "suspended")
        until(lambda: fleet.said("fleet").count("told to suspend") == 2)
    fleet.open_gate()
    assert run.wait(timeout=30) == "finished"
    assert run.record.worker not in (name, f"{name}-r1")


def test_a_worker_or_a_queue_that_is_not_there_is_told_of(fleet: Fleet, redis: Redis, tell: Tell) -> None:
    """One sentence that names those there are, exit code 3, and nobody is told anything."""
    fleet.start("one")
    for words, said in [
        (("drain", "one", "two"), "no live worker is named 'two': workers: one"),
        (("suspend", "two"), "no live worker is named 'two': workers: one"),
        (("resume", "two"), "no live worker is named 'two': workers: one"),
        (("drain", "--queue", "low"), "no live worker works on queue 'low': queues worked on: default"),
        (("suspend", "one", "-q", "low"), "there is no queue 'low', no run was ever in it: queues: default"),
        (("resume", "-q", "low"), "there is no queue 'low', no run was ever in it: queues: default"),
    ]:
        result = tell(*words)
        assert (result.exit_code, result.stdout, result.stderr) == (3, "", f"error: {said}\n")
    for words in (("drain",), ("suspend", "-q", "a b"), ("-n", "2", "drain", "one"), ("nonsense",)):
        assert tell(*words).exit_code == 2
    assert shown(fleet) == {"one": "idle"}
    assert redis.keys("flowtilla:order:*") + redis.keys("flowtilla:suspended:*") == []


def test_asyncio_services_can_tell_too(fleet: Fleet) -> None:
    """The same verbs with the same answers."""
    fleet.start("one")

    async def tell() -> list[list[WorkerRecord]]:
        async with AsyncClient(settings=fleet.settings) as client:
            answers = [await client.suspend("one"), await client.suspend(queues=["default"])]
            answers += [await client.resume(all=True), await client.drain(all=True)]
            with pytest.raises(ValueError, match="name workers or queues"):
                await client.drain()
            return answers

    answers = asyncio.run(tell())

    said = [[(one.state, one.suspended) for one in answer] for answer in answers]
    assert [one[0][1] for one in said] == [(), ("default",), (), ()]
    assert [one[0][0] for one in said][1::2] == ["suspended", "draining"]
    assert fleet.ended("one") == 0

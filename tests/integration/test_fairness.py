"""Whose run is next: each namespace has a line of its own in a queue, and is served in its turn."""

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hands import with_hands
from hypothesis import HealthCheck, given, settings
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

import flowtilla
from fleet import Fleet, until
from house import housekeep

FLOW = {"kind": "workflow", "metadata": {"name": "one"}, "spec": {"stages": [{"name": "s", "target": "m.echo"}]}}


def submit(fleet: Fleet, namespace: str, count: int, **options: Any) -> list[str]:
    """Submits runs of a namespace, and returns their ids."""
    runs = [{"workflow": FLOW, "namespace": namespace, **options} for _ in range(count)]
    return [run.id for run in fleet.client.submit_many(runs)]


def taken(fleet: Fleet, count: int, weights: dict[str, float] | None = None) -> list[str]:
    """Claims so many runs one by one, and returns their ids."""

    async def take(hands: Any) -> list[str]:
        return [claim.run_id for _ in range(count) for claim in await hands.take()]

    return with_hands(fleet, take, weights)


def test_who_comes_late_does_not_wait_behind_all_of_another(fleet: Fleet) -> None:
    """Ten runs behind a thousand of another namespace are claimed in turn with it."""
    submit(fleet, "big", 1000)
    late = submit(fleet, "small", 10)

    assert [run for run in taken(fleet, 21) if run in late] == late


def test_who_comes_back_each_time_does_not_keep_others_waiting(fleet: Fleet) -> None:
    """A namespace that has one run whenever somebody claims gets every other turn, not every one."""
    submit(fleet, "a-first-in-the-alphabet", 1)
    submit(fleet, "big", 100)
    seen = []
    for _ in range(20):
        seen += taken(fleet, 1)
        if seen[-1].startswith("a-first"):
            submit(fleet, "a-first-in-the-alphabet", 1)

    assert 9 <= sum(run.startswith("big--") for run in seen) <= 11


@pytest.mark.parametrize("weights", [{"heavy": 3.0}, {"*": 0.5, "heavy": 1.5}, {"light": 1 / 3}])
def test_weights_say_how_often_a_namespace_is_served(fleet: Fleet, weights: dict[str, float]) -> None:
    """Of two that have runs waiting, one of three times the weight is served three times as often."""
    submit(fleet, "heavy", 100)
    submit(fleet, "light", 100)

    assert 29 <= sum(run.startswith("heavy--") for run in taken(fleet, 40, weights)) <= 31


def test_one_claim_of_many_runs_is_as_fair(fleet: Fleet) -> None:
    """Turns are taken within a claim too."""
    submit(fleet, "big", 100)
    submit(fleet, "small", 100)

    claims = with_hands(fleet, lambda hands: hands.take(40))

    assert 19 <= sum(claim.run_id.startswith("big--") for claim in claims) <= 21


def test_first_of_its_namespace(fleet: Fleet) -> None:
    """`at_front` passes the runs of the namespace, and takes no other's turn."""
    submit(fleet, "a", 3)
    others = submit(fleet, "b", 3)
    [urgent] = submit(fleet, "a", 1, at_front=True)

    order = taken(fleet, 7)
    assert order.index(urgent) < 2
    assert [run for run in order if run in others] == others


def test_rq_shows_the_lines(fleet: Fleet, redis: Redis) -> None:
    """A line is a queue to RQ's tools as long as it has runs; to ours they are in the queue they were submitted to."""
    runs = submit(fleet, "research", 2)
    submit(fleet, "default", 1)

    lines = {queue.name: queue for queue in Queue.all(redis, serializer=JSONSerializer)}
    assert lines.keys() == {"default", "default@research"}
    assert lines["default@research"].job_ids == runs
    assert [job.id for job in lines["default@research"].jobs] == runs
    assert [record.queue for record in fleet.client.records()] == ["default"] * 3

    assert len(taken(fleet, 4)) == 3
    assert {queue.name for queue in Queue.all(redis)} == {"default"}


def test_a_run_that_is_handed_back_is_the_first_of_its_line(fleet: Fleet, redis: Redis) -> None:
    """And in no other line: a lost run of a namespace does not pass those of others."""
    first, *_ = submit(fleet, "research", 3)

    async def lose(hands: Any) -> None:
        [claim] = await hands.take()
        await hands.lose(redis, claim)

    with_hands(fleet, lose)

    assert redis.lrange("rq:queue:default@research", 0, 0) == [first.encode()]
    assert not redis.exists("rq:queue:default")


@pytest.mark.parametrize("damage", ["none", "kind"])
def test_turns_that_are_lost_are_found_again(fleet: Fleet, redis: Redis, damage: str) -> None:
    """When the keys that say whose turn it is were evicted or overwritten, the next sweep mends it."""
    runs = submit(fleet, "research", 3)
    for key in ("flowtilla:turns:default", "flowtilla:arrived:default"):
        redis.delete(key)
        if damage == "kind":
            redis.set(key, "x")
    other = taken(fleet, 1) or submit(fleet, "other", 1)
    housekeep(fleet.settings, "sweep")

    assert sorted(taken(fleet, 5)) == sorted(runs + other)


def test_a_worker_heeds_the_weights_of_its_configuration(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many runs that wait when it comes, those of the heavier namespace end sooner."""
    ids = {name: [fleet.submit({"name": "echo"}, namespace=name) for _ in range(12)] for name in ("light", "heavy")}
    monkeypatch.setenv("FLOWTILLA__LIMITS__NAMESPACES", json.dumps({"heavy": {"weight": 5}}))
    fleet.start("w", concurrency=1)

    until(lambda: all(run.state.ended for runs in ids.values() for run in runs), seconds=60)

    ends = sorted((run.record.ended_at, name) for name, runs in ids.items() for run in runs)
    assert [name for _, name in ends[:12]].count("heavy") >= 9


NAMESPACES = st.sampled_from(["default", "a", "b"])
STEPS = st.lists(st.tuples(st.just("submit"), NAMESPACES) | st.tuples(st.just("take"), st.integers(1, 5)), max_size=25)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_lines_keep_their_laws(fleet: Fleet, redis: Redis, steps: list[tuple[str, Any]]) -> None:
    """Each run is claimed once, those of a namespace in order, and two that wait are served alike."""
    redis.flushall()
    waiting: dict[str, list[str]] = {"default": [], "a": [], "b": []}
    # How often each was served since both have been waiting.
    served: dict[tuple[str, str], int] = {}

    def take(count: int) -> None:
        for claim in with_hands(fleet, lambda hands: hands.take(count)):
            name = claim.namespace
            assert waiting[name].pop(0) == claim.run_id
            for other in waiting:
                if other != name and waiting[other]:
                    served[name, other] = served.get((name, other), 0) + 1
                    assert served[name, other] - served.get((other, name), 0) <= 2
            if not waiting[name]:
                for pair in [pair for pair in served if name in pair]:
                    del served[pair]

    for step, what in steps:
        if step == "submit":
            waiting[what] += submit(fleet, what, 1)
        else:
            take(what)
    take(sum(map(len, waiting.values())))
    assert not any(waiting.values())
    assert not redis.exists("flowtilla:turns:default") or taken(fleet, 1) == []


def test_a_suspect_of_one_namespace_keeps_no_other_waiting(fleet: Fleet, redis: Redis) -> None:
    """A busy worker leaves it in its place, and takes what others have."""
    suspects = submit(fleet, "bad", 20)
    for run in suspects:
        redis.hset(f"rq:job:{run}", "strikes", 2)
    good = submit(fleet, "good", 3)

    claims = with_hands(fleet, lambda hands: hands.take(5, idle=False))

    assert [claim.run_id for claim in claims] == good
    assert redis.lrange("rq:queue:default@bad", 0, -1) == [run.encode() for run in suspects]


def test_the_default_namespace_has_the_queue_of_its_name(fleet: Fleet, redis: Redis) -> None:
    """So the runs of whoever names no namespace stand where RQ's users look for them."""
    run = flowtilla.Client(settings=fleet.settings).submit(FLOW)

    assert redis.lrange("rq:queue:default", 0, -1) == [run.id.encode()]

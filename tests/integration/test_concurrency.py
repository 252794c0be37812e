"""How many runs that share a key are in workers' hands at once."""

import asyncio
from typing import Any

import hypothesis.strategies as st
import pytest
from hands import with_hands
from hypothesis import HealthCheck, given, settings
from redis import Redis
from rq.job import Job, JobStatus
from rq.rate_limit import RateLimitRegistry
from rq.serializers import JSONSerializer

import flowtilla
from fleet import Fleet, until
from flowtilla.errors import InvalidWorkflow, MessageError
from flowtilla.states import RunState
from house import housekeep


def workflow(concurrency: int | None = None) -> dict[str, Any]:
    """Returns a workflow of which so many runs may be in hand at once."""
    stages = [{"name": "s", "target": "fleet_stages.echo"}]
    return {
        "kind": "workflow",
        "metadata": {"name": "train"},
        "spec": {"stages": stages} | ({"concurrency": concurrency} if concurrency else {}),
    }


def submit(fleet: Fleet, count: int, limit: int | None = None, **options: Any) -> list[flowtilla.Run]:
    """Submits runs of that workflow."""
    return fleet.client.submit_many([{"workflow": workflow(limit), **options} for _ in range(count)])


def ids(things: Any) -> list[str]:
    """Returns the ids of claims."""
    return [claim.run_id for claim in things]


def test_only_so_many_runs_of_a_workflow_are_in_hand(fleet: Fleet, redis: Redis) -> None:
    """The others wait, say for what, and come in their order when one ends, however it ended."""
    runs = [run.id for run in submit(fleet, 5, limit=2)]

    async def work(hands: Any) -> list[str]:
        first, second = await hands.take(10)
        assert [first.run_id, second.run_id] == runs[:2]
        assert [one.waits_for for one in fleet.client.records() if one.id in runs[2:]] == ["workflow:default:train"] * 3
        assert {one.state for one in fleet.client.records()} == {RunState.QUEUED, RunState.RUNNING}
        await hands.end(second, RunState.FAILED)
        [third] = await hands.take(10)
        await hands.end(third, RunState.QUARANTINED)
        [fourth] = await hands.take(10)
        await hands.end(fourth, RunState.CANCELLED)
        await hands.end(first)
        [fifth] = await hands.take(10)
        await hands.end(fifth)
        return ids([third, fourth, fifth])

    assert with_hands(fleet, work) == runs[2:]
    assert not redis.keys("rq:rl*") + redis.keys("flowtilla:held:*")


def test_a_workflow_is_limited_in_each_namespace(fleet: Fleet) -> None:
    """What another namespace calls the same is another workflow."""
    for namespace in ("a", "b"):
        submit(fleet, 2, limit=1, namespace=namespace)

    claims = with_hands(fleet, lambda hands: hands.take(10))

    assert sorted(claim.namespace for claim in claims) == ["a", "b"]


def test_a_run_waits_for_all_of_its_keys(fleet: Fleet) -> None:
    """And takes no place of one while it waits for another."""
    [first] = submit(fleet, 1, concurrency={"customer-1": 1})
    [both] = submit(fleet, 1, concurrency={"api": 1, "customer-1": 1})
    [other] = submit(fleet, 1, concurrency={"api": 1})

    async def work(hands: Any) -> None:
        claims = await hands.take(10)
        assert ids(claims) == [first.id, other.id]
        assert both.record.waits_for == "key:customer-1"
        await hands.end(claims[0])
        assert await hands.take(10) == []
        assert both.record.waits_for == "key:api"
        await hands.end(claims[1])
        assert ids(await hands.take(10)) == [both.id]

    with_hands(fleet, work)


def test_a_run_keeps_its_place_when_its_worker_is_lost(fleet: Fleet, redis: Redis) -> None:
    """The next attempt has it, and nobody passes."""
    first, _ = submit(fleet, 2, concurrency={"k": 1})

    async def work(hands: Any) -> None:
        [claim] = await hands.take(10)
        await hands.lose(redis, claim)
        again = await hands.take(10)
        assert (ids(again), again[0].attempt) == ([first.id], 2)

    with_hands(fleet, work)


def test_rq_knows_who_waits(fleet: Fleet, redis: Redis) -> None:
    """Its job says `rate_limited`, and its registry of the key has both."""
    first, second = submit(fleet, 2, concurrency={"k": 1})
    with_hands(fleet, lambda hands: hands.take(10))

    registry = RateLimitRegistry("key:k", redis)
    assert (registry.get_allowed_job_ids(), registry.get_rate_limited_job_ids()) == ([first.id], [second.id])
    job = Job.fetch(second.id, redis, serializer=JSONSerializer)
    assert (job.get_status(), job.has_rate_limit) == (JobStatus.RATE_LIMITED, True)


def test_whom_rqs_own_maintenance_lets_in_takes_no_place_for_ever(fleet: Fleet, redis: Redis) -> None:
    """It knows of one key each; runs that it lets in, and that wait for another, block nobody."""
    keys: tuple[dict[str, int], ...] = ({"x": 1, "y": 1}, {"y": 1, "x": 1})
    [first] = submit(fleet, 1, concurrency={"x": 1, "y": 1})
    waiting = [run.id for one in keys for run in submit(fleet, 1, concurrency=one)]

    async def work(hands: Any) -> list[str]:
        [claim] = await hands.take(10)
        for registry in RateLimitRegistry.all(redis):
            redis.zrem(registry.allowed_key, first.id)
            registry.cleanup()
        held, claimed = [claim], []
        while held:
            await hands.end(held.pop())
            await asyncio.to_thread(housekeep, fleet.settings, "sweep")
            held += await hands.take(10)
            claimed += ids(held)
        return claimed

    assert sorted(with_hands(fleet, work)) == sorted(waiting)


@pytest.mark.parametrize("how", ["ours", "rq", "deleted"])
@pytest.mark.parametrize("which", [0, 1], ids=["who has a place", "who waits"])
def test_what_is_cancelled_gives_its_place_back(fleet: Fleet, redis: Redis, how: str, which: int) -> None:
    """A run that waits, queued or for a place, and is cancelled or deleted by anybody, keeps no other from its turn."""
    runs = submit(fleet, 3, concurrency={"k": 1})

    async def work(hands: Any) -> list[str]:
        [claim] = await hands.take(10)
        await hands.lose(redis, claim)
        if how == "ours":
            runs[which].cancel()
        else:
            job = Job.fetch(runs[which].id, redis, serializer=JSONSerializer)
            job.cancel() if how == "rq" else job.delete()
        await asyncio.to_thread(housekeep, fleet.settings, "sweep")
        claimed = []
        while claims := await hands.take(10):
            claimed += ids(claims)
            [claim] = claims
            await hands.end(claim)
        return claimed

    assert with_hands(fleet, work) == [run.id for run in runs if run is not runs[which]]
    housekeep(fleet.settings, "sweep")
    assert not redis.keys("rq:rl*") + redis.keys("flowtilla:held:*")


@pytest.mark.parametrize("key", ["rq:rl:key:k:allowed", "rq:rl:key:k:rate_limited", "flowtilla:held:default"])
def test_damage_to_what_counts_them_stops_nobody(fleet: Fleet, redis: Redis, key: str) -> None:
    """Whatever somebody else put there, every run ends."""
    runs = submit(fleet, 3, concurrency={"k": 1})
    damaging = True

    async def work(hands: Any) -> None:
        while claims := await hands.take(10):
            if damaging:
                redis.delete(key)
                redis.set(key, "x")
            for claim in claims:
                await hands.end(claim)

    with_hands(fleet, work)
    damaging = False
    housekeep(fleet.settings, "sweep")
    with_hands(fleet, work)
    assert all(run.state.ended for run in runs)


@pytest.mark.parametrize("limits", ["x", "7", "[7]", '[["k"]]', '[["k", "many"]]', "{}", "[[[],1]]"])
def test_what_is_no_limit_limits_nothing(fleet: Fleet, redis: Redis, limits: str) -> None:
    """A run whose limits somebody overwrote is claimed."""
    [run] = submit(fleet, 1)
    redis.hset(f"rq:job:{run.id}", "limits", limits)

    assert ids(with_hands(fleet, lambda hands: hands.take(1))) == [run.id]


@pytest.mark.parametrize("most", [0, -1, True, 1.5, "2", None])
def test_a_limit_is_a_number_of_runs(fleet: Fleet, most: Any) -> None:
    """What is none is refused before anything is queued."""
    with pytest.raises(MessageError, match="concurrency: 'k' may have 1 run at once, or more"):
        submit(fleet, 1, concurrency={"k": most})
    with pytest.raises(InvalidWorkflow, match="concurrency"):
        fleet.client.submit(workflow() | {"spec": {**workflow()["spec"], "concurrency": 0}})
    assert fleet.client.records() == []


def test_a_fleet_heeds_limits(fleet: Fleet) -> None:
    """Of twelve runs, two at once may have the key; two workers with room for all run them so, and all end."""
    stage = {"name": "open_and_close"}
    runs = [fleet.submit(stage, concurrency={"k": 2}, input={"folder": str(fleet.folder), "n": n}) for n in range(12)]
    for name in ("one", "two"):
        fleet.start(name, concurrency=8)

    until(lambda: all(run.state.ended for run in runs))

    opened, most = 0, 0
    for line in (fleet.folder / "opened").read_text().split():
        opened += 1 if line == "open" else -1
        most = max(most, opened)
    assert {run.state for run in runs} == {RunState.FINISHED}
    assert most == 2


KEYS = st.dictionaries(st.sampled_from(["x", "y"]), st.integers(1, 2), max_size=2)
STEPS = st.lists(
    st.tuples(st.just("submit"), KEYS)
    | st.tuples(st.sampled_from(["take", "end", "lose", "cancel", "sweep"]), st.integers(0, 3)),
    max_size=30,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_limits_keep_their_laws(fleet: Fleet, redis: Redis, steps: list[tuple[str, Any]]) -> None:
    """Whatever happens to runs: each has its places while it is in hand, all end, and nothing is left over."""
    redis.flushall()
    limits: dict[str, dict[str, int]] = {}

    async def work(hands: Any) -> None:
        held: list[Any] = []

        async def take(count: int) -> None:
            held.extend(await hands.take(count))
            for one in held:
                for key, most in limits[one.run_id].items():
                    sharing = sum(key in limits[other.run_id] for other in held)
                    # The strictest waits for its own number; others may be above it.
                    assert sharing <= max(most, *(limits[other.run_id].get(key, 0) for other in held))

        for step, what in steps:
            if step == "submit":
                run = fleet.client.submit(workflow(), concurrency=what)
                limits[run.id] = what
            elif step == "take":
                await take(what)
            elif step == "end" and held:
                await hands.end(held.pop(what % len(held)))
            elif step == "lose" and held:
                await hands.lose(redis, held.pop(what % len(held)))
            elif step == "cancel":
                waiting = [one.id for one in fleet.client.records(state="queued")]
                for run_id in waiting[what : what + 1]:
                    fleet.client.get(run_id).cancel()
            elif step == "sweep" and what == 0:
                await asyncio.to_thread(housekeep, fleet.settings, "sweep")
        await take(50)
        while held:
            await hands.end(held.pop(0))
            await take(50)

    with_hands(fleet, work)
    assert all(one.state.ended for one in fleet.client.records())
    assert not redis.keys("rq:rl*") + redis.keys("flowtilla:held:*")

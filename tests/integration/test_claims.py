"""What a claim takes, what it leaves, and what happens to runs whose workers are gone."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

import flowtilla
from fleet import Fleet
from flowtilla.errors import LeaseLost, RunFailed
from flowtilla.record import StageRecord
from flowtilla.settings import SigningSettings
from flowtilla.states import RunState, StageState
from flowtilla_worker.attempt import Attempt, Claim, Notes
from flowtilla_worker.claims import Claims
from flowtilla_worker.connections import Connections
from flowtilla_worker.engine.halt import Halt
from flowtilla_worker.engine.poison import poison, suspect
from flowtilla_worker.scripts import CLAIM, REAP, RENEW
from flowtilla_worker.writer import Writer

T = TypeVar("T")
LEASE = 10.0


class Hands:
    """What one worker does in Redis, without the worker."""

    def __init__(self, writer: Writer, name: str) -> None:
        self.writer = writer
        self.name = name
        self.claims = Claims(writer, name, ["default"], LEASE)

    async def take(self, count: int = 1, idle: bool = True) -> list[Claim]:
        return await self.claims.take(count, idle) or []

    def attempt(self, claim: Claim) -> Attempt:
        return Attempt(claim, self.writer, self.name, SigningSettings())

    async def renew(self, claim: Claim) -> Any:
        args = (10_000, 60, "now", "rq:job:", 0, claim.run_id, claim.token)
        return await self.writer.call(RENEW, ("flowtilla:leases", f"rq:worker:{self.name}"), args)


def with_hands(fleet: Fleet, do: Callable[[Hands], Awaitable[T]]) -> T:
    """Lets a worker's hands do something."""

    async def work() -> T:
        redis = Connections(fleet.settings.redis).asyncio()
        writer = Writer(redis)
        try:
            return await do(Hands(writer, "w"))
        finally:
            await writer.close()
            await redis.aclose()

    return asyncio.run(work())


async def lose(hands: Hands, redis: Redis, claim: Claim) -> None:
    """Lets the lease of a run run out, and takes it back."""
    redis.zadd("flowtilla:leases", {claim.run_id: 1})
    redis.hset("flowtilla:looked", mapping={"at": round(time.time() * 1000), "patient_until": 0})
    prefixes = ("rq:job:", "rq:wip:", "rq:queue:", "flowtilla:wake:", "rq:worker:")
    taken = await hands.writer.call(REAP, ("flowtilla:leases", "flowtilla:looked"), (10, 10_000, *prefixes))
    assert taken == [claim.run_id.encode()]


async def take_and_tell(hands: Hands, count: int) -> Any:
    """Takes runs, and returns the keys and arguments with which that was asked for."""
    sent: list[Any] = []
    call = hands.writer.call

    async def listening(script: Any, keys: Any, args: Any, **how: Any) -> Any:
        sent.append((keys, args))
        return await call(script, keys, args, **how)

    hands.writer.call = listening  # type: ignore[method-assign]
    await hands.take(count)
    hands.writer.call = call  # type: ignore[method-assign]
    return sent[0]


def struck(fleet: Fleet, redis: Redis, strikes: int) -> flowtilla.Run:
    """Returns a queued run that took down so many workers."""
    run = fleet.submit({"name": "echo"})
    redis.hset(f"rq:job:{run.id}", "strikes", strikes)
    return run


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda redis, run: redis.hset(f"rq:job:{run}", "attempt", "many"), "not an integer"),
        (lambda redis, run: redis.set(f"flowtilla:run:{run}:stages", "x"), "WRONGTYPE"),
        (lambda redis, run: redis.set(f"flowtilla:run:{run}:values", "x"), "WRONGTYPE"),
    ],
    ids=["attempt", "stages", "values"],
)
def test_a_run_with_a_damaged_key_fails_and_the_others_are_claimed(
    fleet: Fleet, redis: Redis, damage: Callable[[Redis, str], Any], said: str
) -> None:
    """It is neither lost nor stuck, its waiter hears of it, and what came is kept as evidence."""
    bad, good = fleet.submit({"name": "echo"}), fleet.submit({"name": "echo"})
    # What earlier attempts left is read only then.
    redis.hset(f"rq:job:{bad.id}", "attempt", 1)
    damage(redis, bad.id)

    claims = with_hands(fleet, lambda hands: hands.take(2))

    assert [claim.run_id for claim in claims] == [good.id]
    with pytest.raises(RunFailed, match=f"a key of the run in Redis is damaged .*{said}.*: submit it again"):
        bad.result(timeout=5)
    assert redis.zscore("flowtilla:leases", bad.id) is None
    assert json.loads(redis.lindex("flowtilla:damaged", 0))["id"] == bad.id
    assert redis.ttl(f"rq:job:{bad.id}") > 0


def test_damage_that_concerns_all_runs_fails_none(fleet: Fleet, redis: Redis) -> None:
    """The claim says what is wrong, and every run stays where it is."""
    run = fleet.submit({"name": "echo"})
    redis.set("flowtilla:leases", "x")

    with pytest.raises(ResponseError, match="flowtilla:leases is damaged: it is a string; delete it"):
        with_hands(fleet, lambda hands: hands.take())

    assert redis.lrange("rq:queue:default", 0, -1) == [run.id.encode()]


def test_a_claim_whose_answer_was_lost_gives_the_same_runs(fleet: Fleet, redis: Redis) -> None:
    """Sent again with its nonce it takes nothing more; a new one takes the next."""
    runs = [fleet.submit({"name": "echo"}) for _ in range(3)]

    async def twice(hands: Hands) -> tuple[Any, Any, list[Claim]]:
        sent = await take_and_tell(hands, 2)
        first = await hands.writer.call(CLAIM, *sent)
        return first, await hands.writer.call(CLAIM, *sent), await hands.take(2)

    first, again, after = with_hands(fleet, twice)

    assert [one[0].decode() for one in first[1:]] == [run.id for run in runs[:2]]
    assert again == first
    assert [claim.run_id for claim in after] == [runs[2].id]
    assert [claim.attempt for claim in after] == [1]


@pytest.mark.parametrize("switch", ["rq:suspended", "flowtilla:order:w", "flowtilla:suspended:default"])
def test_a_claim_whose_answer_was_lost_gives_the_same_runs_to_who_was_suspended_since(
    fleet: Fleet, redis: Redis, switch: str
) -> None:
    """What it has in hand it has, whoever suspended what; it gets nothing more."""
    runs = [fleet.submit({"name": "echo"}) for _ in range(3)]

    async def suspended(hands: Hands) -> tuple[Any, list[Claim]]:
        sent = await take_and_tell(hands, 2)
        redis.set(switch, "suspend")
        return await hands.writer.call(CLAIM, *sent), await hands.take(2)

    again, after = with_hands(fleet, suspended)

    assert [one[0].decode() for one in again[1:]] == [run.id for run in runs[:2]]
    assert after == []


def test_when_memory_is_full_nothing_new_is_claimed_and_what_runs_ends(fleet: Fleet, redis: Redis) -> None:
    """Leases are renewed, commits and ends are written: so memory comes free again."""
    running, waiting = fleet.submit({"name": "echo"}), fleet.submit({"name": "echo"})

    async def work(hands: Hands) -> None:
        (claim,) = await hands.take()
        redis.config_set("maxmemory", 1)
        with pytest.raises(OutOfMemoryError):
            await asyncio.wait_for(hands.take(), 5)
        assert (await hands.renew(claim))[1:] == [[], []]
        attempt = hands.attempt(claim)
        await attempt.write(Notes([StageRecord("echo", StageState.FINISHED)], {"echo": '{"value":null}'}))
        await attempt.end(RunState.FINISHED, notes=Notes(), keep=60, started=time.time())

    try:
        with_hands(fleet, work)
    finally:
        redis.config_set("maxmemory", 0)

    assert running.state == "finished"
    assert redis.lrange("rq:queue:default", 0, -1) == [waiting.id.encode()]


def test_a_suspect_has_an_idle_worker_to_itself(fleet: Fleet, redis: Redis) -> None:
    """A busy one passes it over and takes others; what dies with it then was no innocent."""
    first, other = struck(fleet, redis, strikes=2), fleet.submit({"name": "echo"})

    async def work(hands: Hands) -> tuple[list[Claim], list[bytes], list[Claim]]:
        busy = await hands.take(5, idle=False)
        queued = redis.lrange("rq:queue:default", 0, -1)
        fleet.submit({"name": "echo"})
        return busy, queued, await hands.take(5, idle=True)

    busy, queued, idle = with_hands(fleet, work)

    assert [claim.run_id for claim in busy] == [other.id]
    assert queued == [first.id.encode()]
    assert [claim.run_id for claim in idle] == [first.id]
    assert suspect(idle[0])
    assert redis.llen("rq:queue:default") == 1


def test_a_suspect_does_not_wait_for_ever_for_an_idle_worker(fleet: Fleet, redis: Redis) -> None:
    """After five seconds it is taken as any other."""
    run = struck(fleet, redis, strikes=2)
    redis.hset(f"rq:job:{run.id}", "suspect_since", round(time.time()) - 6)

    assert [claim.run_id for claim in with_hands(fleet, lambda hands: hands.take(5, idle=False))] == [run.id]


def test_strikes_are_those_in_a_row(fleet: Fleet, redis: Redis) -> None:
    """A stage that ends for the first time shows that the run gets on; one that had ended before does not."""
    run = fleet.submit({"name": "a", "target": "echo"}, {"name": "b", "target": "echo"})
    ended = StageRecord("a", StageState.FINISHED)

    async def work(hands: Hands) -> list[int]:
        strikes = []
        for further in (False, True):
            for _ in range(2):
                (claim,) = await hands.take()
                await lose(hands, redis, claim)
            (claim,) = await hands.take()
            await hands.attempt(claim).write(Notes([ended], further=further))
            strikes.append(int(redis.hget(f"rq:job:{run.id}", "strikes") or 0))
            await hands.attempt(claim).release(Halt.HANDED_BACK)
            redis.hdel(f"rq:job:{run.id}", "strikes")
        return strikes

    assert with_hands(fleet, work) == [2, 0]
    assert redis.hget(f"rq:job:{run.id}", "losses") == b"4"


def test_a_worker_that_was_only_away_takes_back_its_strike(fleet: Fleet, redis: Redis) -> None:
    """It froze, or was cut off: the run did not kill it. It may write nothing all the same."""
    run = fleet.submit({"name": "echo"})

    async def work(hands: Hands) -> None:
        (claim,) = await hands.take()
        await lose(hands, redis, claim)
        assert redis.hmget(f"rq:job:{run.id}", "losses", "strikes") == [b"1", b"1"]

        assert (await hands.renew(claim))[1] == [run.id.encode()]

        assert redis.hmget(f"rq:job:{run.id}", "losses", "strikes") == [b"0", b"0"]
        await hands.renew(claim)
        assert redis.hmget(f"rq:job:{run.id}", "losses", "strikes") == [b"0", b"0"]
        with pytest.raises(LeaseLost):
            await hands.attempt(claim).write(Notes())

    with_hands(fleet, work)


def test_a_lost_worker_leaves_what_is_known_of_it(fleet: Fleet, redis: Redis) -> None:
    """Its host, its process, how it ended and its memory, in the error of the run that is set aside."""
    run = fleet.submit({"name": "echo"})
    known = {"hostname": "node-7", "pid": 4711, "ending": "signal SIGSEGV", "peak_memory": 3 * 2**20}
    redis.hset("rq:worker:w", mapping=known)

    async def work(hands: Hands) -> Claim:
        for _ in range(3):
            (claim,) = await hands.take()
            await lose(hands, redis, claim)
        (claim,) = await hands.take()
        return claim

    claim = with_hands(fleet, work)

    assert redis.hmget(f"rq:job:{run.id}", "losses", "crashes") == [None, b"3"]
    said = str(poison(claim, {"echo": StageRecord("echo", StageState.RUNNING)}, []))
    assert said == (
        "the run took its worker down 3 times in a row while echo ran, so it was set aside (the last of them, pid 4711 "
        "on node-7, had signal SIGSEGV, after it had used 3 MiB of memory at most): look at its log, then "
        f"`flowtilla retry {run.id}`"
    )

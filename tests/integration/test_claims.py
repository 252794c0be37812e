"""What a claim takes, what it leaves, and what happens to runs whose workers are gone."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hands import Hands, with_hands
from redis import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

import flowtilla
from fleet import Fleet
from flowtilla.errors import LeaseLost, RunFailed
from flowtilla.logs import LogLine
from flowtilla.record import StageRecord
from flowtilla.states import RunState, StageState
from flowtilla_worker.attempt import LOG_LINES, Claim, Notes
from flowtilla_worker.engine.halt import Halt
from flowtilla_worker.engine.poison import poison, suspect
from flowtilla_worker.scripts import CLAIM


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
        (lambda redis, run: redis.hset(f"rq:job:{run}", "lost_worker", "x" * 4_000_000), "its fields have 400.* bytes"),
        (lambda redis, run: redis.set(f"flowtilla:run:{run}:stages", "x"), "WRONGTYPE"),
        (lambda redis, run: redis.set(f"flowtilla:run:{run}:values", "x"), "WRONGTYPE"),
    ],
    ids=["attempt", "size", "stages", "values"],
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
    assert 0 < redis.ttl("flowtilla:damaged") <= 7 * 86400


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
                await hands.lose(redis, claim)
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
        await hands.lose(redis, claim)
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
            await hands.lose(redis, claim)
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


def lines(*messages: str) -> list[LogLine]:
    return [LogLine("", "echo", None, 1, 0.0, "here", "stdout", "INFO", message) for message in messages]


def logged(run: flowtilla.Run) -> list[str]:
    return [line.message for line in run.logs()]


def test_a_write_whose_answer_was_lost_is_sent_again_and_logs_no_line_twice(fleet: Fleet, redis: Redis) -> None:
    """Alone, or before another that was not answered either; a next attempt whose log could not be read writes on."""
    run = fleet.submit({"name": "echo"})

    async def work(hands: Hands) -> None:
        (claim,) = await hands.take()
        for first, said in ((1, "ab"), (3, "c"), (1, "ab"), (3, "c"), (4, "d")):
            await hands.attempt(claim).write(Notes(lines=lines(*said), first=first))
        await hands.attempt(claim).release(Halt.HANDED_BACK)
        (claim,) = await hands.take()
        await hands.attempt(claim).write(Notes(lines=lines("e"), first=1))

    with_hands(fleet, work)

    assert logged(run) == list("abcde")


def test_an_end_whose_answer_was_lost_is_sent_again(fleet: Fleet, redis: Redis) -> None:
    """The attempt hears that it ended the run, though it is queued again and taken since; any other has lost it."""
    run = fleet.submit({"name": "fails"})

    async def work(hands: Hands) -> None:
        (claim,) = await hands.take()
        end = partial(hands.attempt(claim).end, RunState.FAILED, notes=Notes(lines=lines("a")), keep=60, started=0.0)
        await end()
        await end()
        assert redis.xlen(f"rq:results:{run.id}") == 1
        run.retry()
        (again,) = await hands.take()
        await end()
        assert run.state == "running"
        with pytest.raises(LeaseLost):
            await hands.attempt(replace(again, token="2-other-1")).end(
                RunState.FAILED, notes=Notes(), keep=60, started=0.0
            )

    with_hands(fleet, work)

    assert logged(run) == ["a"]
    assert redis.zcard("rq:failed:default") == 0


@pytest.mark.parametrize("top", ["18446744073709551615-18446744073709551615", "99-1"])
@pytest.mark.parametrize("stream", ["flowtilla:run:{}:log", "rq:results:{}"])
def test_an_entry_that_nothing_can_follow_keeps_no_run_from_ending(
    fleet: Fleet, redis: Redis, stream: str, top: str
) -> None:
    """Somebody else wrote it into the run's log, or among its results; the result is there all the same."""
    run = fleet.submit({"name": "echo"})

    async def work(hands: Hands) -> None:
        (claim,) = await hands.take()
        redis.xadd(stream.format(run.id), {"line": "x"}, id=top)
        end = partial(hands.attempt(claim).end, notes=Notes(lines=lines("a")), keep=60, started=0.0, result=[5])
        await end(RunState.FINISHED)

    with_hands(fleet, work)

    assert run.result(timeout=5) == [5]


def test_a_log_of_any_size_is_read_as_far_as_workers_write_one(
    fleet: Fleet, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its newest lines; what somebody else put there, and is larger than all of them may be, is left out."""
    run = fleet.submit({"name": "echo"})
    key = f"flowtilla:run:{run.id}:log"
    monkeypatch.setattr("flowtilla_worker.attempt._LOG_BYTES", 1_000_000)
    with redis.pipeline() as pipe:
        for number in range(1, 30_001):
            pipe.xadd(key, {"line": "x" * 2_000_000 if number == 29_995 else "line"}, id=f"1-{number}")
        pipe.execute()

    async def work(hands: Hands) -> list[tuple[int, str]]:
        (claim,) = await hands.take()
        return await hands.attempt(claim).earlier_lines(after=5)

    found = with_hands(fleet, work)

    assert LOG_LINES <= len(found) < 1.2 * LOG_LINES
    assert [number for number, _ in found[-7:]] == [29_993, 29_994, *range(29_996, 30_001)]
    assert {line for _, line in found} == {"line"}

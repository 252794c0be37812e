"""What a service does with the client, against a real server and a real worker."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

import flowtilla
from fleet import Fleet, until
from flowtilla.errors import (
    InvalidName,
    MessageError,
    MessageTooLarge,
    QueueUnavailable,
    RunCancelled,
    RunError,
    RunFailed,
    RunNotFinished,
    RunNotFound,
)


def test_the_journey_of_a_run(fleet: Fleet) -> None:
    """Submit, watch, wait, result, log, artifacts: the surface of the README."""
    fleet.start("w")
    run = fleet.submit({"name": "stores"}, {"name": "echo", "depends_on": ["stores"]}, input={"x": 5}, tags=["nightly"])

    assert run.result(timeout=30) == 5
    assert run.wait(timeout=1) == run.state == "finished"
    assert run.progress == (2, 2)
    stage = run.stages["stores"]
    assert (stage.state, stage.done, stage.total, stage.attempt) == ("finished", 1, 1, 1)
    assert stage.seconds is not None and stage.seconds >= 0
    assert [line.message for line in run.logs()] == ["storing 5"]
    assert run.artifacts["number"].read() == {"x": 5}
    record = run.record
    assert (record.workflow, record.namespace, record.queue, record.tags) == (
        "tested",
        "default",
        "default",
        ("nightly",),
    )
    assert record.started_at <= record.ended_at


def test_logs_can_be_followed_while_the_run_goes_on(fleet: Fleet) -> None:
    """Lines come as they are written, across the end of the run, and the iterator ends with the run."""
    fleet.start("w")
    run = fleet.submit(
        {"name": "gate"}, {"name": "stores", "depends_on": ["gate"]}, input={"folder": str(fleet.folder)}
    )
    lines = run.logs(follow=True)

    assert next(lines).message == "attempt 1 waits at the gate"
    assert run.state == "running"
    fleet.open_gate()
    assert [line.message for line in lines] == [f"storing {fleet.folder}"]
    assert run.state == "finished"


def test_the_whole_log_is_kept_after_the_stream_is_gone(fleet: Fleet, redis: Redis) -> None:
    """The live stream is for the run's time; afterwards the log is read from storage."""
    fleet.start("w")
    run = fleet.submit({"name": "stores"}, input={"x": 5})
    run.wait(timeout=30)
    redis.delete(f"flowtilla:run:{run.id}:log")

    assert [line.message for line in run.logs(follow=True)] == ["storing 5"]


def test_a_failure_is_told_whole(fleet: Fleet) -> None:
    """`RunFailed` carries class, message, traceback, stage; the record has it too."""
    fleet.start("w")
    run = fleet.submit({"name": "fails"}, input={"message": "no wind"})

    with pytest.raises(RunFailed, match="no wind") as raised:
        run.result(timeout=30)
    assert (raised.value.error, raised.value.error_message, raised.value.stage) == ("ValueError", "no wind", "fails")
    assert "in fails" in raised.value.traceback
    assert raised.value.run_id == run.id
    assert run.record.error.message == "no wind"


def test_a_failed_run_can_be_retried_and_keeps_what_it_committed(fleet: Fleet) -> None:
    """`retry` queues it again; finished stages do not run again."""
    fleet.start("w")
    run = fleet.submit({"name": "mark"}, {"name": "gate", "depends_on": ["mark"], "timeout": "200ms"})
    assert run.wait(timeout=30) == "failed"

    fleet.open_gate()
    run.retry()

    assert run.result(timeout=30) == str(fleet.folder)
    assert len(fleet.marks()) == 1
    with pytest.raises(RunError, match="is finished: only a run that failed"):
        run.retry()


def test_a_queued_run_is_cancelled_at_once(fleet: Fleet, redis: Redis) -> None:
    """It leaves the queue, never runs, and `result` raises."""
    run = fleet.submit({"name": "mark"})
    run.cancel()

    assert run.state == "cancelled"
    assert redis.llen("rq:queue:default") == 0
    with pytest.raises(RunCancelled):
        run.result(timeout=1)


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_a_running_run_is_cancelled_soon(fleet: Fleet, mode: str) -> None:
    """Its worker stops it, the stage that ran is marked, the worker goes on."""
    fleet.start("w", mode=mode)
    run = fleet.submit({"name": "gate"}, {"name": "mark", "depends_on": ["gate"]})
    fleet.begun()
    begun = time.monotonic()

    run.cancel()

    assert run.wait(timeout=30) == "cancelled"
    assert time.monotonic() - begun < 5
    assert run.stages["gate"].state == "cancelled"
    assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1
    assert fleet.marks() == []


def test_a_run_not_finished_in_time_says_where_it_is(fleet: Fleet) -> None:
    """`RunNotFinished` is a `TimeoutError`; the run goes on."""
    run = fleet.submit({"name": "echo"})
    with pytest.raises(RunNotFinished, match=r"has not ended in 0\.1 s: it is queued, 0/1 stages"):
        run.result(timeout=0.1)
    assert run.state == "queued"


def test_a_runs_id_begins_with_its_namespace(fleet: Fleet) -> None:
    """Whoever gives the rest of it; a client finds it by the whole, and in its default namespace by the rest."""
    made, given = fleet.submit({"name": "echo"}, namespace="a"), fleet.submit({"name": "echo"}, run_id="nightly--7")
    keyed = fleet.submit({"name": "echo"}, namespace="a", idempotency_key="order 17")
    other = fleet.submit({"name": "echo"}, run_id="a--b", namespace="b")

    assert [run.id.partition("--")[0] for run in (made, given, keyed, other)] == ["a", "default", "a", "b"]
    assert [run.record.namespace for run in (made, given, keyed, other)] == ["a", "default", "a", "b"]
    assert (given.id, other.id) == ("default--nightly--7", "b--a--b")
    assert fleet.submit({"name": "echo"}, run_id=given.id) == given
    assert fleet.client.get(given.id) == given
    plain = fleet.submit({"name": "echo"}, run_id="plain")
    assert fleet.client.get("plain") == plain == fleet.client.get("default--plain")


@pytest.mark.parametrize("namespace", ["a--b", "a-", "x" * 100])
def test_a_namespace_that_a_runs_id_cannot_begin_with_is_refused(fleet: Fleet, namespace: str) -> None:
    """Its end would not be known, or the id would be too long for a folder's name."""
    with pytest.raises(InvalidName, match="is not allowed"):
        fleet.submit({"name": "echo"}, namespace=namespace)


def test_an_equal_run_id_or_key_is_the_same_run(fleet: Fleet, redis: Redis) -> None:
    """The second submit returns the first run and enqueues nothing."""
    first = fleet.submit({"name": "echo"}, run_id="nightly-7")
    again = fleet.submit({"name": "echo"}, run_id="nightly-7")
    keyed = fleet.submit({"name": "echo"}, idempotency_key="order/17 – Øresund")
    rekeyed = fleet.submit({"name": "echo"}, idempotency_key="order/17 – Øresund")
    elsewhere = fleet.submit({"name": "echo"}, idempotency_key="order/17 – Øresund", namespace="other")

    assert (first, keyed) == (again, rekeyed)
    assert elsewhere != keyed
    assert (redis.llen("rq:queue:default"), redis.llen("rq:queue:default@other")) == (2, 1)


def test_queues_are_served_in_order_of_priority(fleet: Fleet) -> None:
    """`high` before `default`, `at_front` before what waits."""
    runs = {
        "default": fleet.submit({"name": "mark"}),
        "front": fleet.submit({"name": "mark"}, at_front=True),
        "high": fleet.submit({"name": "mark"}, queue="high"),
    }
    fleet.start("w", "-q", "high", "-q", "default", concurrency=1)

    assert [run.wait(timeout=30) for run in runs.values()] == ["finished"] * 3
    assert [line.split()[1] for line in fleet.marks()] == [runs[name].id for name in ("high", "front", "default")]


def test_a_run_can_wait_for_its_time(fleet: Fleet, redis: Redis) -> None:
    """`delay` and `at` schedule it where RQ's tools see it; a worker queues it when the time has come."""
    later = fleet.submit({"name": "echo"}, at=datetime.now(UTC) + timedelta(hours=1))
    soon = fleet.submit({"name": "echo"}, delay="300ms", input={"x": 3})
    assert redis.zcard("rq:scheduled:default") == 2
    assert (later.state, soon.state) == ("queued", "queued")

    fleet.start("w")

    assert soon.result(timeout=30) == 3
    assert later.state == "queued"
    later.cancel()
    assert redis.zcard("rq:scheduled:default") == 0


def test_many_runs_travel_in_one_round_trip(fleet: Fleet, redis: Redis) -> None:
    """`submit_many` of a thousand runs is one large request, and not a thousand."""
    workflow = fleet.workflow({"name": "echo"})
    before = redis.info("stats")["total_reads_processed"]
    runs = fleet.client.submit_many({"workflow": workflow, "input": {"x": i}} for i in range(1000))

    # A large request arrives in many reads, of 16 KiB or what there is; a reply was waited for once.
    assert redis.info("stats")["total_reads_processed"] - before < 300
    fleet.start("w")
    assert [run.result(timeout=60) for run in runs] == list(range(1000))


def test_runs_are_listed_newest_first_and_filtered(fleet: Fleet) -> None:
    """By namespace, by state, at most `limit`."""
    ids = [fleet.submit({"name": "echo"}, namespace=name).id for name in ("a", "b", "a")]
    fleet.client.get(ids[0]).cancel()

    assert [run.id for run in fleet.client.runs()] == ids[::-1]
    assert [run.id for run in fleet.client.runs(namespace="a")] == [ids[2], ids[0]]
    assert [run.id for run in fleet.client.runs(state="cancelled")] == [ids[0]]
    assert [run.id for run in fleet.client.runs(limit=1)] == [ids[2]]
    assert fleet.client.runs(namespace="nobody") == []


def test_an_unknown_run_is_a_key_error(fleet: Fleet) -> None:
    """`RunNotFound` names the id and why it may be gone."""
    with pytest.raises(RunNotFound, match="there is no run default--nope") as raised:
        fleet.client.get("nope")
    assert isinstance(raised.value, KeyError)


def test_bad_input_is_refused_before_anything_is_enqueued(fleet: Fleet, redis: Redis) -> None:
    """Too large, no plain data, contradictory: an error that says what to do, and an empty queue."""
    with pytest.raises(MessageTooLarge, match=r"flowtilla\.artifacts\.put"):
        fleet.submit({"name": "echo"}, input={"x": "y" * 2_000_000})
    with pytest.raises(MessageError, match="datetime is not JSON serializable"):
        fleet.submit({"name": "echo"}, input={"x": datetime.now(UTC)})
    with pytest.raises(MessageError, match="give at or delay, not both"):
        fleet.submit({"name": "echo"}, delay=1, at=datetime.now(UTC))
    with pytest.raises(MessageError, match="timeout: 'soon' is not a duration"):
        fleet.submit({"name": "echo"}, timeout="soon")
    assert redis.keys("*") == []


@pytest.mark.parametrize("name", ["../x", "a/b", "..%2f", "a\\b", "", "x" * 129, "a\0b", "аpple", "a\n"])
def test_a_namespace_that_could_lead_elsewhere_is_refused(fleet: Fleet, redis: Redis, name: str) -> None:
    """Nothing is enqueued for it; an empty one is no name for the default."""
    with pytest.raises(flowtilla.errors.InvalidName, match="is not allowed"):
        fleet.submit({"name": "echo"}, namespace=name)
    assert redis.keys("*") == []


def test_an_unreachable_redis_is_named_without_its_password() -> None:
    """The error says host, port and database, never the secret."""
    with pytest.raises(QueueUnavailable, match=r"Redis at 127\.0\.0\.1:1 \(database 3\)") as raised:
        flowtilla.Client("redis://user:hunter2@127.0.0.1:1/3").submit(
            {"kind": "workflow", "metadata": {"name": "w"}, "spec": {"stages": [{"name": "a", "target": "m.f"}]}}
        )
    assert "hunter2" not in f"{raised.value} {raised.value.__cause__!r}"


def test_what_a_run_leaves_in_redis_expires_with_it(fleet: Fleet, redis: Redis) -> None:
    """After the retention no key of the run is left, and its files are swept up."""
    fleet.start("w")
    run = fleet.submit({"name": "stores"}, input={"x": 1}, retention="1s")
    run.wait(timeout=30)

    until(lambda: [key for key in redis.keys(f"*{run.id}*") if not key.endswith(b":log")] == [])
    assert 0 < redis.ttl(f"flowtilla:run:{run.id}:log") <= 300


def test_asyncio_services_have_the_same_verbs(fleet: Fleet) -> None:
    """Submit, follow, wait, result, cancel, list, retry with `await`."""
    fleet.start("w")

    async def service() -> None:
        async with flowtilla.AsyncClient(settings=fleet.settings) as client:
            run = await client.submit(fleet.workflow({"name": "stores"}), {"x": 4})
            assert await run.result(timeout=30) == 4
            assert (await run.record()).state == await run.wait() == "finished"
            assert [line.message async for line in run.logs(follow=True)] == ["storing 4"]
            assert (await run.artifacts())["number"].read() == {"x": 4}
            runs = await client.submit_many([{"workflow": fleet.workflow({"name": "fails"})}] * 3)
            results = await asyncio.gather(*(one.result(timeout=30) for one in runs), return_exceptions=True)
            assert [type(one) for one in results] == [RunFailed] * 3
            assert len(await client.runs(state="failed")) == 3
            waiting = await client.submit(fleet.workflow({"name": "echo"}), queue="unserved")
            await waiting.cancel()
            assert (await client.get(waiting.id)).id == waiting.id
            with pytest.raises(RunCancelled):
                await waiting.result()
            await runs[0].retry()
            with pytest.raises(RunFailed):
                await runs[0].result(timeout=30)

    asyncio.run(service())


def test_a_storage_that_refuses_fails_the_stage_and_not_the_worker(fleet: Fleet) -> None:
    """The run's error is the storage's, with stage and path; a run that stores nothing still ends well."""
    (fleet.folder / "storage").write_text("a file where a folder should be")
    fleet.start("w")
    run = fleet.submit({"name": "stores"}, input={"x": 1})

    with pytest.raises(RunFailed, match="storage") as raised:
        run.result(timeout=30)
    assert (raised.value.error, raised.value.stage) == ("flowtilla.errors.StorageError", "stores")
    assert [line.message for line in run.logs()] == ["storing 1"]
    assert "its log could not be stored" in fleet.said("w")
    assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1

"""Redis goes away, for a moment or for longer than a lease, with the default lease and heartbeat: nothing is lost."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import flowtilla
from fleet import Fleet, until
from flowtilla import steps
from flowtilla.cli.watch import watch
from flowtilla.errors import QueueUnavailable
from flowtilla.settings import Settings, WorkerSettings
from valkeys import Valkey

DEFAULT = WorkerSettings()

#: Seconds of an outage that no lease outlives.
LONG = 30.0


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Valkey]:
    """A server of the test's own."""
    with Valkey(tmp_path / "server") as started:
        yield started


def _start(fleet: Fleet, *names: str) -> None:
    for name in names:
        fleet.start(name, lease=f"{DEFAULT.lease}s", heartbeat=f"{DEFAULT.heartbeat}s")


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_restart_is_borne(queue: Valkey, tmp_path: Path, how: str) -> None:
    """What runs goes on in its attempt, what is queued is still there, and what follows is heard of."""
    with Fleet(queue.url, tmp_path) as fleet:
        _start(fleet, "w")
        run = fleet.submit({"name": "mark"}, {"name": "gate", "depends_on": ["mark"]})
        fleet.begun()
        waiting = fleet.submit({"name": "echo"}, queue="nobodys", input={"x": 2})
        until(lambda: run.stages.get("mark") is not None and run.stages["mark"].state == "finished")

        with getattr(queue, how)():
            fleet.open_gate()
            until(lambda: "Redis is away" in fleet.said("w"))
        assert run.result(timeout=30) == str(tmp_path)
        assert run.record.attempt == 1
        assert len(fleet.marks()) == 1
        assert waiting.state == "queued"
        assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1


@pytest.mark.alarm(240)
@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_an_outage_longer_than_the_lease_costs_no_attempt(queue: Valkey, tmp_path: Path, how: str) -> None:
    """Nobody could renew, so nobody's run is taken over: neither one that ends meanwhile, nor one that goes on after.

    A server that is stopped refuses connections; one that is frozen says nothing, as behind a cut wire.
    """
    with Fleet(queue.url, tmp_path) as fleet:
        _start(fleet, "one", "two")
        ends = fleet.submit({"name": "mark"}, {"name": "gate", "depends_on": ["mark"]})
        fleet.begun()
        other = tmp_path / "other"
        other.mkdir()
        goes_on = fleet.submit({"name": "gate"}, input={"folder": str(other)})
        until((other / "begun-1").exists)
        until(lambda: ends.stages.get("mark") is not None and ends.stages["mark"].state == "finished")

        with getattr(queue, how)():
            began = time.monotonic()
            fleet.open_gate()
            with pytest.raises(QueueUnavailable):
                fleet.submit({"name": "nothing"})
            until(lambda: time.monotonic() > began + LONG, seconds=LONG + 10)
        assert ends.result(timeout=60) == str(tmp_path)
        # Longer than the fleet is patient for those who could not renew.
        until(lambda: queue.client.zscore("flowtilla:leases", goes_on.id) > (time.time() + 5) * 1000)
        settled = time.monotonic() + 2 * DEFAULT.lease
        until(lambda: time.monotonic() > settled)
        assert goes_on.state == "running"
        (other / "open").touch()
        assert goes_on.result(timeout=30) == str(other)
        assert [ends.record.attempt, goes_on.record.attempt] == [1, 1]
        assert len(fleet.marks()) == 1
        for name in ("one", "two"):
            assert "its lease expired" not in fleet.said(name)
        assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1


async def _awaited(settings: Settings, run_id: str) -> list[Any]:
    async with flowtilla.AsyncClient(settings=settings) as client:
        run = await client.get(run_id)
        return [await run.result(timeout=60), [line.message async for line in run.logs(follow=True)]]


def _followed(run: flowtilla.Run) -> list[str]:
    return [line.message for line in run.logs(follow=True)]


def _reading(queue: Valkey) -> int:
    """Returns how many clients wait for what comes."""
    return sum(client["cmd"] == "xread" for client in queue.client.client_list())


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_who_waits_for_a_run_waits_through_an_outage(queue: Valkey, tmp_path: Path, how: str) -> None:
    """Blocking or with asyncio, for the result or for lines; whoever submits hears of it."""
    with Fleet(queue.url, tmp_path) as fleet, ThreadPoolExecutor() as threads:
        _start(fleet, "w")
        run = fleet.submit({"name": "gate"})
        fleet.begun()
        waiting = [
            threads.submit(partial(run.result, timeout=60)),
            threads.submit(partial(_followed, run)),
            threads.submit(lambda: asyncio.run(_awaited(fleet.settings, run.id))),
            threads.submit(partial(watch, run, progress=False, follow=False, timeout=60)),
        ]
        until(lambda: _reading(queue) == len(waiting))
        with getattr(queue, how)():
            began = time.monotonic()
            with pytest.raises(QueueUnavailable):
                fleet.submit({"name": "nothing"})
            # Longer than a silent server is listened to.
            until(lambda: time.monotonic() > began + (7 if how == "frozen" else 2))
            assert not any(one.done() for one in waiting)
            fleet.open_gate()
        result, lines = str(tmp_path), ["attempt 1 waits at the gate"]
        assert [one.result(timeout=30) for one in waiting[:3]] == [result, lines, [result, lines]]
        assert waiting[3].result(timeout=30).state == "finished"


def test_who_waits_for_a_run_does_not_wait_for_ever_for_redis(queue: Valkey, tmp_path: Path) -> None:
    """Not longer than it said; nor while Redis is there and lets it in no more."""
    with Fleet(queue.url, tmp_path) as fleet:
        run = fleet.submit({"name": "nothing"})
        with queue.stopped():
            began = time.monotonic()
            with pytest.raises(QueueUnavailable):
                run.result(timeout=2)
            assert 2 <= time.monotonic() - began < 5
        assert run.state == "queued"
        queue.client.config_set("requirepass", "other")
        try:
            began = time.monotonic()
            queue.client.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises(QueueUnavailable, match=r"correct redis\.url"):
                run.result(timeout=60)
            assert time.monotonic() - began < 5
        finally:
            queue.client.config_set("requirepass", "")


def test_an_outage_that_lasts_is_told_to_who_waits_without_end(
    queue: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute, of which this test waits a second."""
    monkeypatch.setattr(steps, "OUTAGE", 1.0)
    with Fleet(queue.url, tmp_path) as fleet, ThreadPoolExecutor() as threads:
        run = fleet.submit({"name": "nothing"})
        waits = [run.wait, partial(_followed, run), lambda: asyncio.run(_awaited(fleet.settings, run.id))]
        waits.append(partial(watch, run, progress=False, follow=False, timeout=None))
        waiting = [threads.submit(wait) for wait in waits]
        until(lambda: _reading(queue) == len(waiting))
        with queue.stopped():
            for one in waiting:
                with pytest.raises(QueueUnavailable):
                    one.result(timeout=10)

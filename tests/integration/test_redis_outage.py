"""Redis goes away, for a moment or for longer than a lease, with the default lease and heartbeat: nothing is lost."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import Fleet, until
from flowtilla.errors import QueueUnavailable
from flowtilla.settings import WorkerSettings
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

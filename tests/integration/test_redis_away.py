"""Redis goes away in the middle and comes back: runs go on, and what was to be written is written."""

import signal
from pathlib import Path

from fleet import Fleet, until
from flowtilla_worker.dev.embedded import EmbeddedValkey


def test_a_run_outlives_a_restart_of_redis(tmp_path: Path) -> None:
    """The server stops while a stage runs and returns before the lease is over: same attempt, right result."""
    with EmbeddedValkey(tmp_path / "server", persistent=True) as server, Fleet(server.url, tmp_path) as fleet:
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        fleet.start("w", lease="30s", heartbeat="1s")
        run = fleet.submit({"name": "mark"}, {"name": "gate", "depends_on": ["mark"]})
        fleet.begun()
        until(lambda: run.stages.get("mark") is not None and run.stages["mark"].state == "finished")

        server.stop()
        fleet.open_gate()
        until(lambda: "Redis is away" in fleet.said("w"))
        with EmbeddedValkey(tmp_path / "server", persistent=True, port=port):
            assert run.result(timeout=60) == str(tmp_path)
            assert run.record.attempt == 1
            assert len(fleet.marks()) == 1
            # And the worker hears of new runs again.
            assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1


def test_a_worker_can_be_stopped_while_redis_is_away(tmp_path: Path) -> None:
    """It does not wait for ever to say goodbye; what it held is taken over once its lease has run out."""
    with EmbeddedValkey(tmp_path / "server", persistent=True) as server, Fleet(server.url, tmp_path) as fleet:
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        fleet.start("w", grace="100ms")
        run = fleet.submit({"name": "gate"})
        fleet.begun()
        server.stop()
        # In the middle of a claim, which is where an idle slot waits.
        until(lambda: "Redis is away" in fleet.said("w"))
        fleet.kill("w", signal.SIGTERM)
        assert fleet.ended("w", seconds=60) == 1

        with EmbeddedValkey(tmp_path / "server", persistent=True, port=port):
            fleet.open_gate()
            fleet.start("second")
            assert run.result(timeout=30) == str(tmp_path)
            assert run.record.attempt == 2


def test_a_script_flush_is_harmless(fleet: Fleet) -> None:
    """A server that forgot its scripts is taught them again, by worker and client."""
    fleet.start("w")
    fleet.submit({"name": "nothing"}).wait(timeout=30)
    fleet.client._redis.script_flush()
    assert fleet.submit({"name": "echo"}, input={"x": 1}).result(timeout=30) == 1

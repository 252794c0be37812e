"""What a worker does with what the heartbeat learned of the runs in its hands."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis

from fleet import MODULES, Fleet, until
from flowtilla.settings import ExecutorSettings
from flowtilla_executors.registry import create
from flowtilla_worker.connections import Connections
from flowtilla_worker.plan.catalog import Catalog
from flowtilla_worker.worker import Worker


@contextmanager
def working(fleet: Fleet) -> Iterator[Worker]:
    """A worker in this process."""
    executor = create(ExecutorSettings.model_validate({"target": "local", "mode": "threads"}))
    catalog = Catalog(allowed_targets=["fleet_stages.*"])
    worker = Worker(fleet.settings, executor, catalog, Connections(fleet.settings.redis), "here")
    serving = threading.Thread(target=lambda: asyncio.run(worker.serve()))
    serving.start()
    try:
        yield worker
    finally:
        worker.stop()
        serving.join()


def test_an_answer_about_an_earlier_attempt_stops_no_later_one(
    fleet: Fleet, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis may answer when a run has been handed back, and has come to the same worker again."""
    monkeypatch.syspath_prepend(MODULES)
    with working(fleet) as worker:
        run = fleet.submit({"name": "gate"})
        fleet.begun()

        worker._heard([(run.id, "0-of-an-earlier-0")], [(run.id, "0-of-an-earlier-0")])
        fleet.open_gate()
        assert run.result(timeout=30) == str(fleet.folder)
        assert run.record.attempt == 1

        (fleet.folder / "open").unlink()
        other = fleet.submit({"name": "gate"})
        until(lambda: redis.hget(f"rq:job:{other.id}", "token"))
        token = str(redis.hget(f"rq:job:{other.id}", "token"), "ascii")
        worker._heard([], [(other.id, token)])
        other.wait(timeout=30)
        assert other.state == "cancelled"

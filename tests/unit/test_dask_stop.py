"""Where the exception that stops a call on Dask lands, no later call is hit."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import Reschedule

from flowtilla.context import Context
from flowtilla_executors import Call, remote
from flowtilla_executors.dask import stop, task
from flowtilla_executors.dask.deaths import Ledger

KEY = "stage-01"


class FakeWorker:
    """As much of a Dask worker as a task needs."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def get_current_task(self) -> str:
        return KEY

    def log_event(self, topic: str, message: dict[str, Any]) -> None:
        self.said.append(message)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> FakeWorker:
    worker = FakeWorker()
    monkeypatch.setattr(task, "get_worker", lambda: worker)
    return worker


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    worker = SimpleNamespace(address="tcp://here:1", nanny="tcp://here:2", local_directory=tmp_path / "worker")
    ledger = Ledger(worker)
    monkeypatch.setattr(stop, "ledger", ledger)
    return ledger


def run() -> None:
    context = Context(run_id="r", namespace="n", workflow="w", stage="stage", attempt=1, executor="dask")
    task.run("topic", remote.dumped(Call("builtins.dict", context)))


@pytest.mark.parametrize("place", ["begin", "__enter__", "__exit__", "leave"])
def test_wherever_it_lands_the_call_is_closed(
    worker: FakeWorker, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Also where it opens or closes: else its thread would be stopped for ever, whatever it runs by then."""
    owner: Any = Ledger if place == "begin" else stop.Running
    whole = getattr(owner, place)
    landed = []

    def landing(self: Any, *args: Any) -> Any:
        if landed:
            return whole(self, *args)
        if place == "__enter__":
            whole(self, *args)
        landed.append(place)
        assert stop.stop(KEY)  # raises `Stopped` at the next instruction
        pytest.fail("was not stopped")

    monkeypatch.setattr(owner, place, landing)

    with pytest.raises(Reschedule):
        run()

    assert landed == [place]
    assert stop._running == {}
    assert not stop.stop(KEY)
    assert ledger._running == []
    assert "stopped" in worker.said[-1]

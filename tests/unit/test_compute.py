"""The worker's executor, kept running: how often it is started, what is said about it, how it ends."""

import asyncio
import logging
import threading
from typing import Any

import pytest

from flowtilla.errors import ClusterLost, ClusterUnreachable, ExecutorError
from flowtilla_executors import Executor, ExecutorInfo
from flowtilla_worker import compute as module
from flowtilla_worker.compute import Compute


class Scripted(Executor[Any]):
    """An executor whose starts end as a list says: with an error, or, for None, well."""

    kind = "scripted"
    outcome = fetch = cancel = _submit = None  # type: ignore[assignment]

    def __init__(self, *starts: Exception | None) -> None:
        self.starts = list(starts)
        self.modules: list[Any] = []
        self.gone = asyncio.Event()

    async def _start(self, log_sink: Any, modules: Any) -> None:
        self.modules.append(modules)
        self.gone.clear()
        if self.starts and (error := self.starts.pop(0)) is not None:
            raise error

    async def _close(self) -> None:
        pass

    def info(self) -> ExecutorInfo:
        return ExecutorInfo(self.kind, None, 1, detail="as scripted")

    async def lost(self) -> ClusterLost:
        await self.gone.wait()
        return ClusterLost("the cluster died")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were slept, though nobody really did."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        if threading.current_thread() is threading.main_thread():
            slept.append(seconds)
            seconds = 0
        # On another thread is an executor that other tests share.
        await sleep(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", note)
    return slept


def kept(executor: Scripted, losses: list[ClusterLost] | None = None) -> Compute:
    return Compute(executor, ["my_pkg"], lambda: None, [].append if losses is None else losses.append)


async def becomes(compute: Compute, *, ready: bool) -> None:
    changed = asyncio.Event()
    compute._changed = changed.set
    async with asyncio.timeout(30):
        while compute.ready is not ready:
            await changed.wait()
            changed.clear()


def test_an_unreachable_cluster_is_tried_ever_more_rarely(pauses: list[float], caplog: Any) -> None:
    """1 s, 2 s, 4 s, ... up to 30 s, for ever; the reason is a warning once, and again when it is another."""

    async def keep() -> None:
        executor = Scripted(*[ClusterUnreachable("nobody listens")] * 2000, ClusterUnreachable("it boots"), None)
        compute = kept(executor)
        compute.begin(print, patient=True)
        await becomes(compute, ready=True)
        assert executor.modules == [["my_pkg"]] * 2002
        await compute.close(10)

    asyncio.run(keep())
    expected = [min(2.0**number, 30.0) for number in range(10)] + [30.0] * 1991
    assert all(0.8 * wanted <= slept <= 1.2 * wanted for slept, wanted in zip(pauses, expected, strict=True))
    warned = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert [text.rpartition(": ")[2] for text in warned] == ["nobody listens", "it boots"]


def test_the_first_start_may_be_hopeless_a_later_one_is_not(pauses: list[float]) -> None:
    """What was right once may be so again; a cluster never seen that is wrong ends the worker."""

    async def keep() -> None:
        with pytest.raises(ExecutorError, match="no such thing"):
            await kept(Scripted(ExecutorError("no such thing"))).begin(print, patient=True)
        with pytest.raises(ClusterUnreachable):
            await kept(Scripted(ClusterUnreachable("away"))).begin(print, patient=False)

        losses: list[ClusterLost] = []
        executor = Scripted(None, ExecutorError("no such thing"), RuntimeError(), None)
        compute = kept(executor, losses)
        compute.begin(print, patient=True)
        await becomes(compute, ready=True)
        assert compute.detail == "as scripted"
        executor.gone.set()
        await becomes(compute, ready=False)
        assert compute.detail == "the cluster died"
        await becomes(compute, ready=True)
        assert [str(error) for error in losses] == ["the cluster died"]
        assert (executor.starts, executor.running) == ([], True)
        await compute.close(10)
        assert not executor.running

    asyncio.run(keep())


def test_a_call_may_find_the_cluster_gone_first(pauses: list[float]) -> None:
    """What a call reports counts as what the executor's own watch finds."""

    async def keep() -> None:
        losses: list[ClusterLost] = []
        executor = Scripted()
        compute = kept(executor, losses)
        compute.begin(print, patient=True)
        await becomes(compute, ready=True)
        compute.report(ClusterLost("a call says so"))
        compute.report(ClusterLost("another call says so too"))
        await becomes(compute, ready=False)
        await becomes(compute, ready=True)
        assert [str(error) for error in losses] == ["a call says so"]
        assert len(executor.modules) == 2
        await compute.close(10)

    asyncio.run(keep())

"""A cluster that the tests of a user share dies in the middle of one: that run and the next end well."""

import asyncio
from pathlib import Path

import pytest

import flowtilla
from fleet import MODULES, until
from flowtilla_worker.attempt import Claim
from flowtilla_worker.claims import Claims
from flowtilla_worker.testing import run_workflow, started_executor


def kill_the_cluster(folder: str, fate: str) -> int:
    """Kills its own cluster, once, and returns when it is gone."""
    context = flowtilla.context()
    if context.attempt == 1:
        Path(folder, "cluster").write_text(f"{fate} it was killed")
        until(lambda: context.cancelled)
        Path(folder, "cluster").write_text("up")
    return context.attempt


@pytest.mark.parametrize("fate", ["dead", "silent", "torn"])
def test_a_shared_executor_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str) -> None:
    """`run_workflow` gives the result of the second attempt; the executor serves on."""
    monkeypatch.syspath_prepend(MODULES)
    settings = {"target": "fleet_executor.FleetExecutor", "folder": str(tmp_path)}
    dies = flowtilla.Workflow("dies", [{"name": "kill", "target": kill_the_cluster}])
    lives = flowtilla.Workflow("lives", [{"name": "nothing", "target": "fleet_stages.nothing"}])

    with started_executor(settings) as shared:
        for workflow, attempts in ((dies, 2), (lives, 1), (dies, 2)):
            run = run_workflow(workflow, {"folder": str(tmp_path), "fate": fate}, executor=shared)
            assert (run.state, run.record.attempt) == ("finished", attempts)


def test_a_run_that_comes_back_behind_a_claim_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst does not take the late answer of an earlier claim for an empty queue."""
    monkeypatch.syspath_prepend(MODULES)
    settings = {"target": "fleet_executor.FleetExecutor", "folder": str(tmp_path)}
    dies = flowtilla.Workflow("dies", [{"name": "kill", "target": kill_the_cluster}])
    take = Claims.take

    async def late(self: Claims, room: int, idle: bool) -> list[Claim]:
        claims = await take(self, room, idle)
        if not idle:
            await asyncio.sleep(1)
        return claims

    monkeypatch.setattr(Claims, "take", late)
    with started_executor(settings) as shared:
        for _ in range(3):
            run = run_workflow(dies, {"folder": str(tmp_path), "fate": "dead"}, executor=shared)
            assert (run.state, run.record.attempt) == ("finished", 2)

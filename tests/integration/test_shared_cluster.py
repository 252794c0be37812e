"""A cluster that the tests of a user share dies in the middle of one: that run and the next end well."""

from pathlib import Path

import pytest

import flowtilla
from fleet import MODULES, until
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

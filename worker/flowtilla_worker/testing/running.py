"""Runs one workflow to its end, in this process, with no server."""

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fakeredis

from flowtilla.enqueue import enqueue
from flowtilla.loading import load_workflow
from flowtilla.run import Run
from flowtilla.settings import Settings
from flowtilla.steps import drive
from flowtilla.submission import prepare
from flowtilla.workflow import Workflow
from flowtilla_worker.plan.catalog import Catalog
from flowtilla_worker.testing.executors import ExecutorLike, made
from flowtilla_worker.testing.loop import on_loop
from flowtilla_worker.worker import Worker


class _Connections:
    """Connections to a Redis that lives in this process."""

    def __init__(self) -> None:
        self._server = fakeredis.FakeServer()

    def blocking(self, patience: float | None = None) -> Any:
        return fakeredis.FakeRedis(server=self._server)

    def asyncio(self, patience: float | None = None) -> Any:
        return fakeredis.FakeAsyncRedis(server=self._server)


def run_workflow(
    workflow: str | Path | Mapping[str, Any] | Workflow,
    input: Mapping[str, Any] | None = None,
    *,
    executor: ExecutorLike = "local",
    namespace: str = "default",
    config: Mapping[str, Any] | None = None,
    storage: str | Path | None = None,
    timeout: float | str | None = None,
) -> Run:
    """Runs a workflow to its end and returns the finished run.

    It goes the whole way, through a queue, a claim, the engine and the executor, as on a fleet; only Redis is one that
    lives in this process. Every target may run: the test's author wrote them.

    Args:
        workflow: a file, a mapping or a `Workflow`, whose targets may be functions of the test module itself.
        input: what root stages get.
        executor: a short name, a mapping as in the configuration file, or what `started_executor` gave.
        namespace: where artifacts and objects live.
        config: what stages read in `context().config`.
        storage: a folder for artifacts and results; a temporary one that goes with the run when None.
        timeout: seconds the whole run may take.

    Returns:
        The run, ended however it ended: `run.result()` raises `RunFailed` as it would for a fleet's run.

    Raises:
        InvalidWorkflow: the workflow breaks a rule.
    """
    checked = load_workflow(workflow)
    base = str(storage or tempfile.mkdtemp(prefix="flowtilla-run-"))
    settings = Settings.model_validate({"storage": {"protocol": "file", "base_path": base}})
    connections = _Connections()
    redis = connections.blocking()
    submission = prepare(settings, checked, input, namespace=namespace, config=config, timeout=timeout)
    drive(enqueue(submission), redis)
    catalog = Catalog(allowed_targets=["*"])
    on_loop(_work(settings, made(executor), catalog, connections))
    run = Run(submission.run_id, redis, settings)
    if storage is None:
        weakref.finalize(run, shutil.rmtree, base, ignore_errors=True)
    return run


async def _work(settings: Settings, executor: Any, catalog: Catalog, connections: Any) -> None:
    await Worker(settings, executor, catalog, connections).serve(burst=True)

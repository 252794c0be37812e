"""Every sentence of what a workflow means is tested on every executor, with the same answer."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flowtilla import Run, Stage, Workflow
from flowtilla_executors import Executor
from flowtilla_worker.testing import run_workflow, started_executor
from semantics import EXECUTORS


@pytest.fixture(scope="package", params=EXECUTORS.values(), ids=EXECUTORS.keys())
def executor(request: pytest.FixtureRequest) -> Iterator[Executor[Any]]:
    """One started executor for all these tests."""
    with started_executor(request.param) as started:
        yield started


@pytest.fixture
def run(executor: Executor[Any]) -> Callable[..., Run]:
    """Runs a workflow of stages: `run([Stage(...), ...], input={...})`."""

    def start(stages: list[Stage], input: dict[str, Any] | None = None, **options: Any) -> Run:
        return run_workflow(Workflow("tested", stages), input, executor=executor, **options)

    return start

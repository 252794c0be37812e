"""Every sentence of what a workflow means is tested on every executor, with the same answer."""

from collections.abc import Callable
from typing import Any

import pytest

from backends import Started
from flowtilla import Run, Stage, Workflow
from flowtilla_executors import Executor
from flowtilla_worker.testing import run_workflow


@pytest.fixture
def executor(started: Started) -> Executor[Any]:
    """One started executor for all these tests."""
    return started.executor()


@pytest.fixture
def run(executor: Executor[Any]) -> Callable[..., Run]:
    """Runs a workflow of stages: `run([Stage(...), ...], input={...})`."""

    def start(stages: list[Stage], input: dict[str, Any] | None = None, **options: Any) -> Run:
        return run_workflow(Workflow("tested", stages), input, executor=executor, **options)

    return start

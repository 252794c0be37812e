"""Random workflows: whatever their shape, every executor agrees with a few lines that run them by hand."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

import drawn
from backends import Started
from flowtilla import Workflow
from flowtilla_executors import Executor
from flowtilla_worker.testing import run_workflow


@pytest.fixture
def executor(started: Started) -> Executor[Any]:
    """One executor for all drawn workflows."""
    return started.executor()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=drawn.workflows())
def test_every_executor_agrees_with_running_by_hand(
    executor: Executor[Any], case: tuple[Workflow, dict[str, Any]]
) -> None:
    """Fan-out, fan-in, maps, chains of maps, failures, partial failures: same values, same states."""
    workflow, expected = case

    drawn.check(run_workflow(workflow, executor=executor), workflow, expected)

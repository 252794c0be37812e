"""Random workflows: whatever their shape, every executor agrees with a few lines that run them by hand."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import Started
from flowtilla import Stage, Workflow
from flowtilla_executors import Executor
from flowtilla_worker.testing import run_workflow
from shapes import dags


def simple(*values: Any) -> list[Any]:
    """Nests its parents' values."""
    return list(values) or [1, 2, 3]


def mapped(item: Any, *values: Any) -> list[Any]:
    """Nests an item with the other parents' values."""
    return [item, *values]


def failing(*values: Any) -> list[Any]:
    """Raises."""
    raise ValueError("drawn to fail")


def failing_on_lists(item: Any, *values: Any) -> Any:
    """Raises for items that are lists."""
    if isinstance(item, list):
        raise ValueError("drawn to fail")
    return item


KINDS = {
    "simple": (simple, {}),
    "mapped": (mapped, {"type": "parameterized"}),
    "failing": (failing, {}),
    "partial": (failing_on_lists, {"type": "parameterized", "allow_partial_failure": True}),
}


def reference(nodes: dict[str, list[str]], kinds: dict[str, str]) -> dict[str, Any]:
    """Returns what each stage must give: its value, or the state it must end in."""
    values: dict[str, Any] = {}

    def evaluate(name: str) -> Any:
        if name not in values:
            parents = [evaluate(parent) for parent in nodes[name]]
            values[name] = "skipped" if any(isinstance(one, str) for one in parents) else run(kinds[name], parents)
        return values[name]

    def run(kind: str, parents: list[Any]) -> Any:
        if kind == "failing":
            return "failed"
        if kind == "simple":
            return simple(*parents)
        items, others = parents[0], parents[1:]
        if kind == "mapped":
            return [mapped(item, *others) for item in items]
        kept = [item for item in items if not isinstance(item, list)]
        return kept if kept or not items else "failed"

    for name in nodes:
        evaluate(name)
    return values


@pytest.fixture
def executor(started: Started) -> Executor[Any]:
    """One executor for all drawn workflows."""
    return started.executor()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nodes=dags(most=8), data=st.data())
def test_every_executor_agrees_with_running_by_hand(
    executor: Executor[Any], nodes: dict[str, list[str]], data: st.DataObject
) -> None:
    """Fan-out, fan-in, maps, chains of maps, failures, partial failures: same values, same states."""
    kinds = {
        name: data.draw(
            st.sampled_from(["simple", "mapped", "partial", "failing"] if parents else ["simple", "failing"])
        )
        for name, parents in nodes.items()
    }
    stages = [
        Stage(name=name, target=KINDS[kinds[name]][0], depends_on=parents, **KINDS[kinds[name]][1])
        for name, parents in nodes.items()
    ]
    workflow = Workflow("drawn", stages)
    expected = reference(nodes, kinds)

    run = run_workflow(workflow, executor=executor)

    states = {name: str(run.stages[name].state) for name in nodes}
    assert states == {name: value if isinstance(value, str) else "finished" for name, value in expected.items()}
    if all(state == "finished" for state in states.values()):
        finals = {name: expected[name] for name in workflow.final_stages}
        assert run.result() == (finals if len(finals) > 1 else next(iter(finals.values())))
    else:
        assert run.state == "failed"

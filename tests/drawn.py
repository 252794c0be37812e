"""Random workflows: their stages, as data and as functions, and what they must give."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import flowtilla
from flowtilla import Stage, Workflow
from shapes import dags


def simple(*values: Any) -> list[Any]:
    """Nests its parents' values."""
    _mark()
    return list(values) or [1, 2, 3]


def mapped(item: Any, *values: Any) -> list[Any]:
    """Nests an item with the other parents' values."""
    _mark()
    return [item, *values]


def failing(*values: Any) -> list[Any]:
    """Raises."""
    _mark()
    raise ValueError("drawn to fail")


def failing_on_lists(item: Any, *values: Any) -> Any:
    """Raises for items that are lists."""
    _mark()
    if isinstance(item, list):
        raise ValueError("drawn to fail")
    return item


def _mark() -> None:
    """Leaves a line that says that the stage ran, where the run's config names a file for that."""
    context = flowtilla.context()
    if "marks" in context.config:
        with Path(context.config["marks"]).open("a") as file:
            file.write(f"{context.stage}\n")


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "simple": (simple, {}),
    "mapped": (mapped, {"type": "parameterized"}),
    "failing": (failing, {}),
    "partial": (failing_on_lists, {"type": "parameterized", "allow_partial_failure": True}),
}


@st.composite
def workflows(draw: st.DrawFn, most: int = 8) -> tuple[Workflow, dict[str, Any]]:
    """Workflows, and what each of their stages must give: its value, or the state it must end in."""
    nodes = draw(dags(most=most))
    inner, roots = st.sampled_from(["simple", "mapped", "partial", "failing"]), st.sampled_from(["simple", "failing"])
    kinds = {name: draw(inner if parents else roots) for name, parents in nodes.items()}
    stages = [
        Stage(name=name, target=KINDS[kinds[name]][0], depends_on=parents, **KINDS[kinds[name]][1])
        for name, parents in nodes.items()
    ]
    return Workflow("drawn", stages), _expected(nodes, kinds)


def check(run: flowtilla.Run, workflow: Workflow, expected: dict[str, Any]) -> None:
    """Makes sure that a run that has ended gave what it must."""
    states = {name: str(record.state) for name, record in run.stages.items()}
    assert states == {name: value if isinstance(value, str) else "finished" for name, value in expected.items()}
    if all(state == "finished" for state in states.values()):
        finals = {name: expected[name] for name in workflow.final_stages}
        assert run.result() == (finals if len(finals) > 1 else next(iter(finals.values())))
    else:
        assert run.state == "failed"


def _expected(nodes: dict[str, list[str]], kinds: dict[str, str]) -> dict[str, Any]:
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
            return list(parents) or [1, 2, 3]
        items, others = parents[0], parents[1:]
        if kind == "mapped":
            return [[item, *others] for item in items]
        kept = [item for item in items if not isinstance(item, list)]
        return kept if kept or not items else "failed"

    for name in nodes:
        evaluate(name)
    return values

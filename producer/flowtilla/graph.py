"""The shape of a workflow: what depends on what."""

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from flowtilla.problems import suggest

#: A stage's name and the names it depends on.
Node = tuple[str, Sequence[str]]


def check(nodes: Sequence[Node]) -> None:
    """Makes sure that the nodes form a DAG.

    Args:
        nodes: each stage with its dependencies, in any order.

    Raises:
        ValueError: a name occurs twice, a dependency is unknown, or there is a circle.
    """
    names = [name for name, _ in nodes]
    positions: dict[str, int] = {}
    for position, name in enumerate(names):
        if name in positions:
            raise ValueError(f"stages[{position}].name: {name!r} is already the name of stages[{positions[name]}]")
        positions[name] = position
    for position, (_, parents) in enumerate(nodes):
        for index, parent in enumerate(parents):
            if parent not in positions:
                raise ValueError(
                    f"stages[{position}].depends_on[{index}]: no stage is named {parent!r}{suggest(parent, names)}"
                )
    order(nodes)


def order(nodes: Sequence[Node]) -> list[str]:
    """Returns the names such that each follows those it depends on.

    Raises:
        ValueError: there is a circle.
    """
    try:
        return list(TopologicalSorter({name: list(parents) for name, parents in nodes}).static_order())
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ValueError(f"stages depend on each other in a circle: {circle}") from error

"""What a call needs, and whether any node could ever give it."""

from collections.abc import Mapping, Sequence

from flowtilla.errors import ResourcesUnavailable

#: Amounts by name; `memory` is in bytes.
Amounts = Mapping[str, float]


def check(stage: str, need: Amounts, kind: str, nodes: Sequence[Amounts]) -> None:
    """Makes sure that there is a node that could meet a need while it does nothing else.

    Args:
        stage: who needs it.
        need: what it needs.
        kind: the executor's.
        nodes: what each node has in all.

    Raises:
        ResourcesUnavailable: there is none; the message says what there is.
    """
    if not any(all(amount <= node.get(name, 0.0) for name, amount in need.items()) for node in nodes):
        raise ResourcesUnavailable(
            f"stage {stage!r} asks for {shown(need)}, and the {kind} executor has {_on(nodes)}: "
            "ask for less, or give the executor more (`cpus`, `resources`)"
        )


def shown(amounts: Amounts) -> str:
    """Returns amounts as a message shows them: `cpus=2, memory=1.5GiB`."""
    return ", ".join(f"{name}={_amount(name, amount)}" for name, amount in sorted(amounts.items()))


def _on(nodes: Sequence[Amounts]) -> str:
    different = list(dict.fromkeys(shown(node) for node in nodes))
    return " or, on another node, ".join(different) or "no node"


def _amount(name: str, amount: float) -> str:
    return f"{amount / 1024**3:.3g}GiB" if name == "memory" else f"{amount:g}"

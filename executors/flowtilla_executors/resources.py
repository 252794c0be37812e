"""What a call needs, and whether any node could ever give it."""

import time
from collections.abc import Mapping, Sequence

from flowtilla.context import Context
from flowtilla.errors import ResourcesUnavailable
from flowtilla.logs import LogLine
from flowtilla_executors.recorder import host

#: Amounts by name; `memory` is in bytes.
Amounts = Mapping[str, float]

#: Seconds that a call waits for a node which is away before the run's log says so: what died is mostly soon replaced.
MISSED = 3.0


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
    if not _met(need, nodes):
        raise ResourcesUnavailable(
            f"stage {stage!r} asks for {shown(need)}, and the {kind} executor has {_on(nodes)}: "
            "ask for less, or give the executor more (`cpus`, `resources`)"
        )


class Offers:
    """What each node of a cluster offers: those that are up, and those that were, since a node that went may return."""

    def __init__(self) -> None:
        self._up: list[Amounts] = []
        self._ever: dict[tuple[tuple[str, float], ...], Amounts] = {}

    def update(self, nodes: Sequence[Amounts]) -> None:
        """Takes what the nodes that are up have in all."""
        self._up = list(nodes)
        self._ever |= {tuple(sorted(node.items())): node for node in nodes}

    def meet(self, stage: str, need: Amounts, kind: str) -> bool:
        """Returns whether a node that is up could meet a need while it does nothing else; if not, one that was could.

        Args:
            stage, need, kind: as `check` has them.

        Raises:
            ResourcesUnavailable: no node ever could.
        """
        check(stage, need, kind, list(self._ever.values()))
        return _met(need, self._up)


def waits(context: Context, need: Amounts) -> LogLine:
    """Returns what a run's log says of a call that only nodes could run which are away."""
    said = f"no node that is up could give {shown(need)}: the stage waits until one that could is back"
    where = (context.run_id, context.stage, None, context.attempt)
    return LogLine(*where, time.time(), host(), "flowtilla", "WARNING", said)


def shown(amounts: Amounts) -> str:
    """Returns amounts as a message shows them: `cpus=2, memory=1.5GiB`."""
    return ", ".join(f"{name}={_amount(name, amount)}" for name, amount in sorted(amounts.items()))


def _met(need: Amounts, nodes: Sequence[Amounts]) -> bool:
    return any(all(amount <= node.get(name, 0.0) for name, amount in need.items()) for node in nodes)


def _on(nodes: Sequence[Amounts]) -> str:
    different = list(dict.fromkeys(shown(node) for node in nodes))
    return " or, on another node, ".join(different) or "no node"


def _amount(name: str, amount: float) -> str:
    return f"{amount / 1024**3:.3g}GiB" if name == "memory" else f"{amount:g}"

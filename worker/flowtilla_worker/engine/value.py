"""Where a stage's value is while its run goes on: in the cluster, in pieces, or at hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flowtilla_executors import MISSING, Argument, Joined, Literal, Parent


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a mapped stage's value: the results of some items.

    Args:
        order: sorts the pieces as their items are sorted.
        handle: the list of results, in the cluster.
        indexes: the index of each result's item in the whole map.
        inline: the list itself when it is small plain data, else MISSING.
        size: about how many bytes it takes.
    """

    order: tuple[int, ...]
    handle: Any
    indexes: Sequence[int]
    inline: Any = MISSING
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """The value of a stage.

    Args:
        handle: the value, in the cluster; None when it is in pieces or only at hand.
        chunks: its pieces, in order, when it is a mapped stage's.
        inline: the value itself when it is small plain data, else MISSING.
        length: how many items it has when it is an ordered sequence, else None.
        iterable: whether a stage can map over it.
        kind: its class, for messages.
        indexes: of a mapped stage's value brought back from a commit: each item's index in the whole map.
    """

    handle: Any = None
    chunks: tuple[Chunk, ...] | None = None
    inline: Any = MISSING
    length: int | None = None
    iterable: bool = False
    kind: str = ""
    indexes: Sequence[int] | None = None


@dataclass(slots=True)
class Parents:
    """The handles a call depends on, collected while its arguments are built."""

    handles: list[Any] = field(default_factory=list)

    def argument(self, value: Value) -> Argument:
        """Returns the argument that stands for a value."""
        if value.chunks is not None:
            first = len(self.handles)
            self.handles += [chunk.handle for chunk in value.chunks]
            return Joined(range(first, len(self.handles)))
        if value.handle is None:
            return Literal(value.inline)
        return self.parent(value.handle)

    def parent(self, handle: Any) -> Parent:
        """Returns the argument that stands for the value behind a handle."""
        self.handles.append(handle)
        return Parent(len(self.handles) - 1)

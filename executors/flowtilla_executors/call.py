"""What is asked of an executor: one call of a function, and where its arguments come from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flowtilla.context import Context


@dataclass(frozen=True)
class Literal:
    """An argument that travels with the call: plain data."""

    value: Any


@dataclass(frozen=True)
class Parent:
    """The value of one parent, by its position among the handles given to `submit`."""

    index: int


@dataclass(frozen=True)
class Joined:
    """The lists of several parents (the chunks of a mapped stage) put together in order."""

    indexes: Sequence[int]


#: Where an argument comes from.
Argument = Literal | Parent | Joined


@dataclass(frozen=True)
class Items:
    """Makes a call a mapped one: the function runs once per item, and the call's value is the list of results.

    Args:
        source: the list (or other iterable) that holds the items.
        indexes: each item's index in the whole map, which its errors and `context().item` show.
        start, stop: the window of `source` that this call takes; all of it when `stop` is None.
        place: where the item goes: a position among the positional arguments, or a parameter's name.
    """

    source: Argument
    indexes: Sequence[int] | None = None
    start: int = 0
    stop: int | None = None
    place: int | str = 0


@dataclass(frozen=True)
class Call:
    """One call of a function, as data: it can be pickled and run on another machine.

    Args:
        target: the function's dotted path; or, for functions that no import finds, its cloudpickle.
        context: what `flowtilla.context()` returns inside; also attributes log lines.
        args: the positional arguments, without the item of a mapped call.
        kwargs: keyword arguments: plain data, copied before each use.
        items: what a mapped call maps over, or None.
        readonly: whether the big buffers (arrays) of its arguments are not copied, and cannot be written to.
        timeout: seconds, for the whole call; the engine gives items with a timeout calls of their own.
        cpus, gpus, memory: what the call needs (counts; bytes); None is the executor's default.
        resources: logical resources by name.
        priority: of the calls that wait for room the highest begins first, where the executor `prioritizes`.
        ahead: it was submitted before its parents ended: if one failed, or stored artifacts that nobody can see yet,
            it does not run, and its outcome says `early`.
        inline: values of at most this many bytes as JSON come back inside the outcome.
    """

    target: str | bytes
    context: Context
    args: tuple[Argument, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    items: Items | None = None
    readonly: bool = False
    timeout: float | None = None
    cpus: float | None = None
    gpus: float | None = None
    memory: int | None = None
    resources: dict[str, float] = field(default_factory=dict)
    priority: int = 0
    ahead: bool = False
    inline: int = 64 * 1024

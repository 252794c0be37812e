"""What comes back of a call: small, while its value stays in the cluster."""

import traceback
from dataclasses import dataclass
from enum import Enum
from typing import Any

from flowtilla.logs import LogLine

#: Characters of an exception's message, or of its traceback, that an outcome carries.
LONGEST = 32 * 1024


#: How many processes a call may take down, or die with, before it counts as lost.
LIVES = 3


class _Missing(Enum):
    MISSING = "missing"


#: The value did not come back with the outcome; None is a value like any other.
MISSING = _Missing.MISSING


@dataclass(frozen=True)
class Failure:
    """An exception as data.

    Args:
        error: its class, as `module.QualName`; builtins without the module.
        message: what it said.
        traceback: the full traceback, causes included.
        bases: the names of the class and its bases, short and dotted: what `retries.on` matches.
        lost: the processes that ran the call died, `LIVES` of them; the call itself may be innocent.
    """

    error: str
    message: str
    traceback: str
    bases: tuple[str, ...] = ()
    lost: bool = False

    @classmethod
    def of(cls, error: BaseException, *, lost: bool = False) -> "Failure":
        """Returns the exception as data; what is too long for a small outcome loses its middle."""
        kinds = [kind for kind in type(error).__mro__ if kind is not object]
        return cls(
            error=class_name(type(error)),
            message=_shorten(_said(error)),
            traceback=_shorten("".join(traceback.format_exception(error))),
            bases=tuple(dict.fromkeys(name for kind in kinds for name in (kind.__name__, class_name(kind)))),
            lost=lost,
        )


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Args:
        failure: why it failed; None when it returned. A mapped call returns even when items failed.
        item_failures: the failed items of a mapped call, by index in the whole map.
        value: the value itself when it is exactly representable as small JSON, else `MISSING`.
        size: about how many bytes the value takes, or None where nobody knows.
        length: how many items the value has when it is a list or another ordered sequence, else None.
        iterable: whether a mapped stage can map over the value.
        kind: the value's class, as `module.QualName`.
        busy: seconds in the function itself, of all items together.
        started, ended: seconds since the epoch, on the clock of `host`.
        early: the call did not run, since it was submitted ahead of parents that it cannot follow; submit it again.
        logs: lines not yet handed to the log sink, in order.
        artifacts: what the call stored, to be published when the stage is committed, or discarded if it failed; of a
            mapped call, what the items that succeeded stored.
    """

    started: float
    ended: float
    host: str
    pid: int
    failure: Failure | None = None
    item_failures: tuple[tuple[int, Failure], ...] = ()
    value: Any = MISSING
    size: int | None = None
    length: int | None = None
    iterable: bool = False
    kind: str = ""
    busy: float = 0.0
    early: bool = False
    logs: tuple[LogLine, ...] = ()
    artifacts: tuple[dict[str, Any], ...] = ()


def class_name(kind: type) -> str:
    """Returns a class's name as people write it: `ValueError`, `my_pkg.errors.Flaky`."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"<its __str__ raised {class_name(type(broken))}>"


def _shorten(text: str) -> str:
    """Returns text that fits, and that can be written as UTF-8."""
    if len(text) > LONGEST:
        left_out = f"\n… {len(text) - LONGEST} characters left out …\n"
        text = text[: LONGEST // 2] + left_out + text[-LONGEST // 2 :]
    return text.encode("utf-8", "backslashreplace").decode()

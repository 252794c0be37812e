"""What the engine learns about a value that stays where it is."""

import json
from collections.abc import Sequence
from types import NoneType
from typing import Any

from flowtilla_executors.outcome import MISSING

_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode
_ATOMS = frozenset({NoneType, bool, int, float})


def inline(value: Any, limit: int) -> Any:
    """Returns a copy of the value when it is exactly JSON of at most `limit` bytes, else `MISSING`.

    Exactly means that reading the JSON gives the same value back: no tuple, no subclass, no NaN, no key but `str`.
    """
    try:
        if _spend(value, limit) < 0:
            return MISSING
        text = _ENCODE(value).encode()
        return json.loads(text) if len(text) <= limit else MISSING
    except (ValueError, RecursionError):  # NaN, an endless number, half a surrogate pair; too deep
        return MISSING


def _spend(value: Any, left: int) -> int:
    """Returns what is left of a budget of bytes, negative as soon as the value cannot fit or is not JSON."""
    kind = type(value)
    if kind in _ATOMS:
        return left - 1
    if kind is str:
        return left - 2 - len(value)
    if kind is list:
        return _spend_all(value, left - 1 - len(value))
    if kind is dict:
        left = _spend_all(value.values(), left - 1 - 4 * len(value))
        return left - sum(map(len, value)) if left >= 0 and all(type(key) is str for key in value) else -1
    return -1


def _spend_all(values: Any, left: int) -> int:
    if left >= 0:
        for value in values:
            left = _spend(value, left)
            if left < 0:
                break
    return left


def length(value: Any) -> int | None:
    """Returns how many items an ordered sequence has, None for anything else."""
    if _lazy(value):
        return None
    # Arrays, series and tensors have a dtype and at least one axis; a table (dtypes) iterates over its columns.
    if isinstance(value, Sequence) or (hasattr(value, "dtype") and getattr(value, "ndim", None)):
        try:
            return len(value)
        except Exception:
            return None
    return None


def iterable(value: Any) -> bool:
    """Returns whether a mapped stage can map over the value."""
    if _lazy(value):
        return True
    try:
        iter(value)
    except Exception:
        return False
    return True


def _lazy(value: Any) -> bool:
    # A Dask collection would be computed to say how long it is.
    return hasattr(type(value), "__dask_graph__")

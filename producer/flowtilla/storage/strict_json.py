"""JSON that gives back what it was given, or refuses."""

import json
from collections.abc import Iterator
from typing import Any

from flowtilla.errors import ValueNotStorable

_PLAIN = (str, int, float, bool, type(None))


def dump(value: Any, *, convert: bool = False, what: str = "value") -> bytes:
    """Returns a value as JSON.

    Args:
        value: what to write.
        convert: let JSON turn what it can into its own types (a tuple into a list) rather than refuse it.
        what: the kind of thing it is, for the message.

    Raises:
        ValueNotStorable: it holds something that JSON cannot give back.
    """
    try:
        for path, why in () if convert else _faults(value, what):
            raise ValueNotStorable(f"{path} {why}")
        return json.dumps(value, allow_nan=False, ensure_ascii=False, indent=1).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueNotStorable(f"{what} cannot be JSON: {error}") from error


def load(data: bytes) -> Any:
    """Returns the value of JSON."""
    return json.loads(data)


def _faults(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yields where a value is not exactly JSON, and why."""
    kind = type(value)
    if kind is dict:
        for key, one in value.items():
            if type(key) is not str:
                yield path, f"has the key {key!r}, and JSON has only text keys"
            yield from _faults(one, f"{path}[{key!r}]")
    elif kind is list:
        for index, one in enumerate(value):
            yield from _faults(one, f"{path}[{index}]")
    elif kind is float and (value != value or value in (float("inf"), float("-inf"))):
        yield path, f"is {value}, which JSON does not have"
    elif kind not in _PLAIN:
        hint = ': convert it, or pass format="json" to have it stored as a list' if kind is tuple else ""
        yield (
            path,
            f"is a {kind.__module__}.{kind.__qualname__}, which JSON does not have{hint}".replace("builtins.", ""),
        )

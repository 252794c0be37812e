"""Says what is wrong with data, in sentences that name each field's path."""

from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails


def describe(error: ValidationError, source: str, known: dict[tuple[str, ...], list[str]] | None = None) -> str:
    """Returns one line per problem: the field's path, what is wrong, what was given.

    Args:
        error: what pydantic found.
        source: what was read, a file's name for example.
        known: the keys that are allowed at a path, to suggest the one that was meant; `[]` stands for any index.
    """
    lines = [f"  {path(detail['loc'])}: {_problem(detail, known or {})}" for detail in error.errors()]
    return "\n".join([f"{source} is not valid:", *lines])


def path(location: tuple[int | str, ...]) -> str:
    """Returns a location as people write it: `spec.stages[2].target`."""
    written = ""
    for part in location:
        written += f"[{part}]" if isinstance(part, int) else f".{part}" if written else part
    return written or "(top level)"


def _problem(detail: ErrorDetails, known: dict[tuple[str, ...], list[str]]) -> str:
    where = tuple(part if isinstance(part, str) else "[]" for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return "unknown key" + suggest(where[-1], known.get(where[:-1], []))
    if detail["type"] == "missing":
        return "is required"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return message if detail["type"] == "value_error" else f"{message}, not {_shown(detail['input'])}"


def suggest(given: str, known: list[str]) -> str:
    """Returns `; did you mean 'x'?` or the list of what is known, or nothing."""
    if close := get_close_matches(given, known, n=1):
        return f"; did you mean {close[0]!r}?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def _shown(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"

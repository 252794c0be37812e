"""Prints: data on standard output, progress and problems on standard error."""

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

#: Where no terminal limits it, a line is as long as it is.
_WIDE = 10_000


def console(error: bool = False) -> "Console":
    """Returns a console that prints text as it is; tables are not cut where there is no terminal."""
    from rich.console import Console

    made = Console(stderr=error, markup=False, highlight=False, emoji=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = _WIDE
    return made


def print_json(data: Any) -> None:
    """Prints one JSON document."""
    print(json.dumps(data, indent=2, ensure_ascii=False, default=_plain))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows under their columns' names."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def print_result(value: Any) -> None:
    """Prints a run's result: text as it is, plain data as JSON, anything else as Python shows it."""
    if isinstance(value, str):
        print(value)
        return
    try:
        print(json.dumps(value, indent=2, ensure_ascii=False))
    except (TypeError, ValueError):
        print(value)


def note(text: str) -> None:
    """Prints something that is not data."""
    print(text, file=sys.stderr)


def moment(when: datetime | None) -> str:
    """Returns a time as people read it, in their own zone."""
    return "" if when is None else when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)

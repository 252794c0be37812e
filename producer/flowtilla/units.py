"""Units people write: durations ("90s", "5m") and sizes ("8GB", "512MiB")."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"B": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("KMGTP", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}
#: The longest duration, 100 years, and the largest size: beyond, clocks and counters overflow here and there.
LONGEST, LARGEST = 100 * 365 * 86400.0, 2.0**62

_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*\Z", re.ASCII)


def parse_duration(value: Any) -> float:
    """Returns a duration in seconds.

    Args:
        value: a positive number of seconds, or a string such as "250ms", "90s", "5m", "2h", "7d".

    Raises:
        ValueError: it is neither, or more than 100 years.
    """
    return _parse(value, _SECONDS, LONGEST, "a duration", 'seconds, or a string such as "90s", "5m", "2h", "7d"')


def parse_size(value: Any) -> int:
    """Returns a size in bytes.

    Args:
        value: a positive number of bytes, or a string such as "512MiB" (1024s) or "8GB" (1000s).

    Raises:
        ValueError: it is neither.
    """
    return round(_parse(value, _BYTES, LARGEST, "a size", 'bytes, or a string such as "512MiB", "8GB"'))


def _parse(value: Any, units: dict[str, float] | dict[str, int], most: float, what: str, allowed: str) -> float:
    found: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and (match := _QUANTITY.match(value)) and match[2] in units:
        found = float(match[1]) * units[match[2]]
    # Compared before it is converted: JSON has numbers that no float holds.
    if found is None or not 0 <= found <= most:
        raise ValueError(f"{value!r:.80} is not {what}: give {allowed}")
    return float(found)


#: Seconds, for pydantic models; reads "90s" and 90 alike.
Seconds = Annotated[float, BeforeValidator(parse_duration)]

#: Bytes, for pydantic models; reads "8GB" and 8000000000 alike.
Bytes = Annotated[int, BeforeValidator(parse_size)]

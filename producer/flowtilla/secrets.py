"""Keeps secrets out of what people see."""

import re
from collections.abc import Mapping
from typing import Any

#: Stands for a secret.
MASK = "**********"

_SECRET_KEY = re.compile(r"pass(word|wd|phrase)|secret|token|credential|key|auth", re.IGNORECASE)
# The user stays visible, as in redis://worker:**********@host; the greedy part reaches the last @ of the address.
_PASSWORD = re.compile(r"(\w://[^/?#\s:@]*:)[^/?#\s]*@")
_PARAMETER = re.compile(r"([?&](?:password|token|secret|key)=)[^&#\s]*", re.IGNORECASE)


def masked(data: Any) -> Any:
    """Returns a copy of plain data without secrets: passwords in URLs, and values whose key sounds like one."""
    if isinstance(data, Mapping):
        return {key: hidden(value) if _SECRET_KEY.search(str(key)) else masked(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [masked(item) for item in data]
    return _PARAMETER.sub(rf"\1{MASK}", _PASSWORD.sub(rf"\1{MASK}@", data)) if isinstance(data, str) else data


def hidden(data: Any) -> Any:
    """Returns a copy of plain data with every value hidden; the keys stay."""
    if isinstance(data, Mapping):
        return {key: hidden(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [hidden(item) for item in data]
    return data if data is None or isinstance(data, bool) else MASK

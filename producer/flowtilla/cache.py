"""Keeps what was made of texts, as long as the texts together are not too long."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: How many characters the texts have together at most. What is made of them is some twenty times as large.
LIMIT = 1024**2


class Cache(Generic[T]):
    """Makes something of a text, once for equal texts that were used lately.

    Args:
        make: makes it; what it raises is not kept.
    """

    def __init__(self, make: Callable[[str], T]) -> None:
        self._make = make
        self._made: dict[str, T] = {}
        self._length = 0

    def __call__(self, text: str) -> T:
        """Returns what is made of a text."""
        if text in self._made:
            made = self._made.pop(text)
        else:
            made = self._make(text)
            self._length += len(text)
        # The last is the one that was used last.
        self._made[text] = made
        while self._length > LIMIT:
            oldest = next(iter(self._made))
            del self._made[oldest]
            self._length -= len(oldest)
        return made

"""How values travel between calls: as snapshots, so that stages never share a mutable value."""

import pickle
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from types import NoneType
from typing import Any, NamedTuple, Protocol

import cloudpickle

#: Classes whose instances nobody can change: they need no copy.
IMMUTABLE = frozenset({NoneType, bool, int, float, complex, str, bytes})

#: Bytes of a list that are worth a piece of their own.
_PIECE = 256 * 1024

#: Pieces of one list at most, for each may be a file.
_MOST_PIECES = 256

#: How much larger a list may get in pieces: what its items share, each piece has again.
_SHARING = 1.25


class Snapshot(Protocol):
    """A value as it was at one moment."""

    @property
    def size(self) -> int:
        """About how many bytes it takes."""

    def load(self) -> Any:
        """Returns a fresh copy, which belongs to the caller."""


@dataclass(frozen=True, slots=True)
class Same:
    """The snapshot of a value that cannot change: the value."""

    value: Any

    @property
    def size(self) -> int:
        return sys.getsizeof(self.value)

    def load(self) -> Any:
        return self.value


@dataclass(frozen=True, slots=True)
class Copied:
    """A snapshot in memory: a pickle, and beside it the big buffers (arrays) it refers to."""

    stream: bytes
    buffers: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        return len(self.stream) + sum(map(len, self.buffers))

    def load(self) -> Any:
        return pickle.loads(self.stream, buffers=[bytearray(buffer) for buffer in self.buffers])


@dataclass(frozen=True, slots=True)
class Listed:
    """The snapshot of a long list, in pieces: who maps over a window of it loads only those that hold the window.

    Args:
        pieces: consecutive parts of the list.
        starts: where in the list each begins.
    """

    pieces: tuple[Snapshot, ...]
    starts: tuple[int, ...]

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)

    def load(self) -> list[Any]:
        return [item for piece in self.pieces for item in piece.load()]

    def window(self, start: int, stop: int | None) -> Iterator[Any]:
        """Returns fresh copies of the items from `start` to `stop`."""
        first = max(0, bisect_right(self.starts, start) - 1)
        last = len(self.pieces) if stop is None else bisect_left(self.starts, stop)
        items = chain.from_iterable(piece.load() for piece in self.pieces[first:last])
        skipped = self.starts[first]
        return islice(items, start - skipped, None if stop is None else stop - skipped)


class Dumped(NamedTuple):
    """A value's pickle, and the big buffers it refers to, not copied."""

    stream: bytes
    buffers: list[memoryview]

    @property
    def size(self) -> int:
        return len(self.stream) + sum(buffer.nbytes for buffer in self.buffers)

    def copied(self) -> Copied:
        """Returns the snapshot in memory."""
        return Copied(self.stream, tuple(map(bytes, self.buffers)))


def snapshot(value: Any) -> Snapshot:
    """Returns the value as it is now.

    Raises:
        Exception: the value, or something in it, cannot be pickled.
    """
    if type(value) in IMMUTABLE:
        return Same(value)
    return assembled(value, dumps(value), Dumped.copied)


def assembled(value: Any, whole: Dumped, make: Callable[[Dumped], Snapshot]) -> Snapshot:
    """Returns the snapshot of a value: one, or in pieces when it is a long list.

    Args:
        value: the value.
        whole: its pickle.
        make: returns the snapshot of a pickle.
    """
    count = min(len(value), whole.size // _PIECE, _MOST_PIECES) if type(value) is list else 0
    if count < 2:
        return make(whole)
    starts = [len(value) * number // count for number in range(count)]
    pieces = [dumps(value[start:stop]) for start, stop in zip(starts, [*starts[1:], None], strict=True)]
    if sum(piece.size for piece in pieces) > whole.size * _SHARING:
        return make(whole)
    return Listed(tuple(map(make, pieces)), tuple(starts))


def fresh(value: Any) -> Any:
    """Returns a copy that shares nothing mutable with the value.

    Raises:
        Exception: the value, or something in it, cannot be pickled.
    """
    if type(value) in IMMUTABLE:
        return value
    stream, buffers = dumps(value)
    return pickle.loads(stream, buffers=[bytearray(buffer) for buffer in buffers])


def dumps(value: Any) -> Dumped:
    """Returns the value's pickle.

    Raises:
        Exception: the value, or something in it, cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        stream = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    except Exception:
        # Ten times slower, but takes functions and classes that no import finds.
        buffers.clear()
        stream = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return Dumped(stream, [buffer.raw() for buffer in buffers])

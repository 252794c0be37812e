"""How values travel between calls: as snapshots, so that stages never share a mutable value."""

import mmap
import operator
import pickle
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from types import NoneType
from typing import Any, NamedTuple, Protocol, SupportsIndex

import cloudpickle

#: Classes whose instances nobody can change: they need no copy.
IMMUTABLE = frozenset({NoneType, bool, int, float, complex, str, bytes})

#: What bytes come in.
Buffer = bytes | bytearray | memoryview | mmap.mmap

#: Bytes from which a copy is worth pages of its own.
_HUGE = 4 * 1024 * 1024

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

    def load(self, readonly: bool = False) -> Any:
        """Returns a fresh copy, which belongs to the caller.

        Args:
            readonly: whether its big buffers (arrays) are not copied, and cannot be written to.
        """


class Uncomputed(Exception):
    """Raised when a value is lazy, and computing it raised: the error is the stage's own.

    Args:
        error: what was raised.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class Same:
    """The snapshot of a value that cannot change: the value."""

    value: Any

    @property
    def size(self) -> int:
        return sys.getsizeof(self.value)

    def load(self, readonly: bool = False) -> Any:
        return self.value


@dataclass(frozen=True, slots=True)
class Copied:
    """A snapshot in memory: a pickle, and beside it the big buffers (arrays) it refers to."""

    stream: Buffer
    buffers: tuple[Buffer, ...] = ()

    @property
    def size(self) -> int:
        return sum(memoryview(part).nbytes for part in (self.stream, *self.buffers))

    def load(self, readonly: bool = False) -> Any:
        return _loaded(self.stream, self.buffers, readonly)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        # A cluster that can take buffers out of band moves them without a copy.
        part = pickle.PickleBuffer if operator.index(protocol) >= 5 else bytes
        return Copied, (part(self.stream), tuple(map(part, self.buffers)))


@dataclass(frozen=True)
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

    def load(self, readonly: bool = False) -> list[Any]:
        return [item for piece in self.pieces for item in piece.load(readonly)]

    def window(self, start: int, stop: int | None, readonly: bool = False) -> Iterator[Any]:
        """Returns fresh copies of the items from `start` to `stop`, as `load` does."""
        first = max(0, bisect_right(self.starts, start) - 1)
        last = len(self.pieces) if stop is None else bisect_left(self.starts, stop)
        items = chain.from_iterable(piece.load(readonly) for piece in self.pieces[first:last])
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
        return Copied(self.stream, tuple(map(private, self.buffers)))

    def lent(self) -> Copied:
        """Returns a snapshot that shares the value's own buffers: for who pickles it before the value can change."""
        return Copied(self.stream, tuple(self.buffers))


def snapshot(value: Any) -> Snapshot:
    """Returns the value as it is now.

    Raises:
        Exception: the value, or something in it, cannot be pickled.
    """
    return Same(value) if type(value) in IMMUTABLE else assembled(value, dumps(value), Dumped.copied)


def lent(value: Any) -> Snapshot:
    """Returns a snapshot that may share the value's buffers: for who pickles it before the value can change.

    Raises:
        Exception: the value, or something in it, cannot be pickled.
    """
    return Same(value) if type(value) in IMMUTABLE else assembled(value, dumps(value), Dumped.lent)


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


def fresh(value: Any, readonly: bool = False) -> Any:
    """Returns a copy that shares nothing mutable with the value.

    Args:
        value: what to copy.
        readonly: whether its big buffers (arrays) are shared, and cannot be written to.

    Raises:
        Exception: the value, or something in it, cannot be pickled.
    """
    if type(value) in IMMUTABLE:
        return value
    return _loaded(*dumps(value), readonly)


def _loaded(stream: Buffer, buffers: Sequence[Buffer], readonly: bool) -> Any:
    return pickle.loads(
        stream, buffers=[memoryview(buffer).toreadonly() if readonly else private(buffer) for buffer in buffers]
    )


def private(buffer: Buffer) -> bytearray | mmap.mmap:
    """Returns a copy of a buffer that may be written to."""
    view = memoryview(buffer)
    if view.nbytes < _HUGE:
        return bytearray(view)
    pages = mmap.mmap(-1, view.nbytes, access=mmap.ACCESS_COPY)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Half the time: most of it goes into the first touch of each page.
        pages.madvise(mmap.MADV_HUGEPAGE)
    memoryview(pages)[:] = view.cast("B")
    return pages


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

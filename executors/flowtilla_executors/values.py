"""How values travel between calls: as snapshots, so that stages never share a mutable value."""

import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Any, Protocol

import cloudpickle

#: Classes whose instances nobody can change: they need no copy.
IMMUTABLE = frozenset({NoneType, bool, int, float, complex, str, bytes})

#: Returns a fresh copy of a value each time.
Source = Callable[[], Any]


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


def snapshot(value: Any) -> Same | Copied:
    """Returns the value as it is now.

    Raises:
        Exception: the value, or something in it, cannot be pickled.
    """
    if type(value) in IMMUTABLE:
        return Same(value)
    stream, buffers = dumps(value)
    return Copied(stream, tuple(bytes(buffer.raw()) for buffer in buffers))


def fresh(value: Any) -> Any:
    """Returns a copy that shares nothing mutable with the value.

    Raises:
        Exception: the value, or something in it, cannot be pickled.
    """
    if type(value) in IMMUTABLE:
        return value
    stream, buffers = dumps(value)
    return pickle.loads(stream, buffers=[bytearray(buffer.raw()) for buffer in buffers])


def dumps(value: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Returns the value's pickle, and the big buffers it refers to, not copied.

    Raises:
        Exception: the value, or something in it, cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        return pickle.dumps(value, protocol=5, buffer_callback=buffers.append), buffers
    except Exception:
        # Ten times slower, but takes functions and classes that no import finds.
        buffers.clear()
        stream: bytes = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        return stream, buffers

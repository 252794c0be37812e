"""Values too big for a pipe: written once to shared memory, mapped by whoever needs them."""

import errno
import mmap
import os
import pickle
import sys
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import FileIO
from itertools import accumulate, chain, count
from pathlib import Path
from typing import Any, TypeVar

from flowtilla_executors.values import IMMUTABLE, Copied, Dumped, Listed, Same, Snapshot, assembled, dumps

AnySnapshot = TypeVar("AnySnapshot", bound=Snapshot | None)

#: Values of at most this many bytes travel with the reply, through the worker's process.
SMALL = 64 * 1024

#: Where buffers begin in a file; what arrays like best.
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Mapped:
    """A snapshot in a file: a pickle, and behind it the big buffers it refers to, at `places` (offset, length)."""

    path: Path
    stream: int
    places: tuple[tuple[int, int], ...]
    size: int

    def load(self, readonly: bool = False) -> Any:
        # Private pages: who writes into an array writes into a copy of the page.
        access = mmap.ACCESS_READ if readonly else mmap.ACCESS_COPY
        with self.path.open("rb") as file:
            view = memoryview(mmap.mmap(file.fileno(), 0, access=access))
        buffers = [view[start : start + length] for start, length in self.places]
        return pickle.loads(view[: self.stream], buffers=buffers)


def store(value: Any, name: str, directories: Sequence[Path]) -> Snapshot:
    """Returns a snapshot of the value, in files if it is big.

    Args:
        value: what to keep.
        name: what the files' names begin with.
        directories: where it may go; the first that has room.

    Raises:
        Exception: the value cannot be pickled, or there is no room for it.
    """
    if type(value) in IMMUTABLE and sys.getsizeof(value) <= SMALL:
        return Same(value)
    numbers = count()
    return assembled(value, dumps(value), lambda dumped: _store(dumped, f"{name}{next(numbers)}", directories))


def _store(dumped: Dumped, name: str, directories: Sequence[Path]) -> Copied | Mapped:
    if dumped.size <= SMALL:
        return dumped.copied()
    padded = [_padded(part) for part in (memoryview(dumped.stream), *dumped.buffers)]
    path = write(chain.from_iterable(padded), name, directories)
    starts = accumulate(sum(map(len, parts)) for parts in padded)
    places = tuple((start, part.nbytes) for start, part in zip(starts, dumped.buffers, strict=False))
    return Mapped(path, len(dumped.stream), places, dumped.size)


def owned(kept: AnySnapshot) -> AnySnapshot:
    """Returns the snapshot; the files it is in, if any, go with the last reference to it in this process."""
    for each in kept.pieces if isinstance(kept, Listed) else (kept,):
        if isinstance(each, Mapped):
            weakref.finalize(each, each.path.unlink, missing_ok=True).atexit = False
    return kept


def write(parts: Iterable[bytes | memoryview], name: str, directories: Sequence[Path]) -> Path:
    """Writes a file, as a whole or not at all, and returns its path.

    Raises:
        OSError: there is no room for it.
    """
    parts = list(parts)
    for directory in directories:
        path = directory / name
        unfinished = directory / f"{name}-{os.getpid()}"
        try:
            with unfinished.open("wb", buffering=0) as file:
                for part in parts:
                    _write_all(file, part)
            return unfinished.rename(path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            if error.errno != errno.ENOSPC or directory is directories[-1]:
                raise
    raise ValueError("there is no folder to write to")


def discard(name: str, directories: Sequence[Path]) -> None:
    """Removes what a call may have left of a file."""
    for directory in directories:
        for path in directory.glob(f"{name}*"):
            path.unlink(missing_ok=True)


def _padded(part: memoryview) -> tuple[memoryview, bytes]:
    return part, bytes(-part.nbytes % _ALIGNMENT)


def _write_all(file: FileIO, part: bytes | memoryview) -> None:
    rest = memoryview(part)
    while rest:
        rest = rest[file.write(rest) :]

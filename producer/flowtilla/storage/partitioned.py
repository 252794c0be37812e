"""Dask collections: folders of parts, each written and read by itself, in parallel where a cluster computes.

{version}/index.json          what the collection is, and the hash of every other file
{version}/part-00000.parquet  a part; numbers have zeros in front, so that names sort as the parts do
{version}/meta.parquet        of a table: its columns, without rows

Nothing here imports dask until it meets a collection.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from typing import Any

from pydantic import BaseModel, ConfigDict

from flowtilla.errors import FlowtillaError, StorageError, ValueNotStorable
from flowtilla.storage import formats
from flowtilla.storage.files import Files

INDEX = "index.json"

#: The collections by their class, each with the format of its parts when nobody asks for another.
_KINDS = {"DataFrame": "dataframe", "Series": "dataframe", "Array": "array", "Bag": "json"}


class Index(BaseModel):
    """What the files of a folder make.

    Args:
        kind: the collection's class.
        format: how each part is written.
        files: the hash of each file.
        divisions: of a table: the index at the borders of its parts, if known and plain.
        dtype: of an array.
        grid: of an array: how many blocks it has along each axis.
        shapes: of an array: each block's, None where a length is not known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    format: str
    files: dict[str, str] = {}
    divisions: list[int | float | str] | None = None
    dtype: str = ""
    grid: list[int] = []
    shapes: list[list[int | None]] = []

    @property
    def parts(self) -> list[str]:
        """The parts' files, in order."""
        return sorted(path for path in self.files if path.startswith("part-"))


@dataclass(frozen=True)
class Parts:
    """A collection, ready to be written.

    Args:
        index: what it is, without files.
        delayed: its parts, of Dask's class `Delayed`.
        meta: of a table: one without rows.
    """

    index: Index
    delayed: Sequence[Any]
    meta: Any = field(default=None, repr=False)

    def write(self, files: Files, folder: str) -> tuple[dict[str, str], dict[str, int]]:
        """Writes the parts where they are, then the index, and returns each file's hash and size.

        Raises:
            ValueNotStorable: the format cannot hold a part.
            StorageError: one cannot be written.
        """
        suffix, width = formats.SUFFIXES[self.index.format], max(5, len(str(len(self.delayed))))
        paths = [f"part-{number:0{width}}{suffix}" for number in range(len(self.delayed))]
        with files.writing(f"{folder}/{INDEX}"):
            pass  # parts are wanted as long as it is there
        try:
            done = dict(zip(paths, self._written(files, folder, paths), strict=True))
        except BaseException:
            with suppress(StorageError):
                files.remove(f"{folder}/{INDEX}")
            raise
        if self.meta is not None:
            done[f"meta{suffix}"] = _write(files, f"{folder}/meta{suffix}", self.index.format, self.meta)
        index = self.index.model_copy(update={"files": {path: digest for path, (digest, _) in done.items()}})
        with files.writing(f"{folder}/{INDEX}") as sink:
            sink.write(index.model_dump_json().encode())
        done[INDEX] = sink.sha256, sink.size
        return {path: one[0] for path, one in done.items()}, {path: one[1] for path, one in done.items()}

    def _written(self, files: Files, folder: str, paths: Sequence[str]) -> Sequence[tuple[str, int]]:
        from dask.base import compute
        from dask.delayed import delayed

        write = delayed(_write_wanted, pure=False)
        parts = zip(paths, self.delayed, strict=True)
        tasks = [write(files, folder, path, self.index.format, part) for path, part in parts]
        try:
            done: Sequence[tuple[str, int]] = compute(*tasks)
        except FlowtillaError:
            raise
        except Exception as error:
            raise ValueNotStorable(
                f"a part of a dask {self.index.kind} cannot be computed: {type(error).__name__}: {error}"
            ) from error
        return done


def is_collection(value: Any) -> bool:
    """Returns whether a value is one of Dask's collections."""
    return hasattr(type(value), "__dask_graph__")


def parts_of(value: Any, format: str | None) -> Parts:
    """Returns a collection ready to be written.

    Args:
        value: the collection.
        format: of each part: None, or `pickle`.

    Raises:
        ValueNotStorable: it is of no class that can be stored, or not in this format.
    """
    kind = type(value).__name__
    if kind not in _KINDS or format not in (None, "pickle", "partitioned"):
        raise ValueNotStorable(
            f"a dask {kind} cannot be stored{f' as {format}' if format else ''}: store a DataFrame, Series, Array or "
            'Bag, in the format that suits it or with format="pickle"; or compute it first'
        )
    chosen = "pickle" if format == "pickle" else _KINDS[kind]
    if kind == "Array":
        shapes = [[None if math.isnan(length) else int(length) for length in one] for one in _blocks(value.chunks)]
        index = Index(kind=kind, format=chosen, dtype=value.dtype.str, grid=list(value.numblocks), shapes=shapes)
        return Parts(index, list(value.to_delayed().ravel()))
    if kind == "Bag":
        return Parts(Index(kind=kind, format=chosen), value.to_delayed())
    return Parts(Index(kind=kind, format=chosen, divisions=_divisions(value)), value.to_delayed(), value._meta)


def collection_of(index: Index, files: Files, folder: str) -> Any:
    """Returns the collection; its parts are read, and checked, when and where it is computed.

    Raises:
        StorageError: dask is not installed here.
    """
    try:
        from dask.delayed import delayed

        read = delayed(_read, pure=True)
        parts = [read(files, f"{folder}/{path}", index.format, index.kind, index.files[path]) for path in index.parts]
        return _MAKERS[index.kind](index, parts, files, folder)
    except ImportError as error:
        raise StorageError(
            f"reading a dask {index.kind} needs {error.name or error}, which is not installed here: "
            'pip install "flowtilla[dask]", or use download()'
        ) from error


def _table(index: Index, parts: list[Any], files: Files, folder: str) -> Any:
    path = f"meta{formats.SUFFIXES[index.format]}"
    meta = _read(files, f"{folder}/{path}", index.format, index.kind, index.files[path])
    frame = import_module("dask.dataframe")
    return frame.from_delayed(parts, meta=meta, divisions=index.divisions, verify_meta=False)


def _bag(index: Index, parts: list[Any], files: Files, folder: str) -> Any:
    return import_module("dask.bag").from_delayed(parts)


def _array(index: Index, parts: list[Any], files: Files, folder: str) -> Any:
    array, numpy = import_module("dask.array"), import_module("numpy")
    blocks = numpy.empty(len(parts), dtype=object)
    for number, (part, shape) in enumerate(zip(parts, index.shapes, strict=True)):
        lengths = tuple(math.nan if length is None else length for length in shape)
        blocks[number] = array.from_delayed(part, shape=lengths, dtype=numpy.dtype(index.dtype))
    known = all(None not in shape for shape in index.shapes)
    if not index.grid:
        return blocks[0]
    nested = blocks.reshape(index.grid).tolist()
    return array.block(nested) if known else _joined(array, nested, axis=0)


def _joined(array: Any, nested: Any, axis: int) -> Any:
    if not isinstance(nested, list):
        return nested
    parts = [_joined(array, one, axis + 1) for one in nested]
    return array.concatenate(parts, axis=axis, allow_unknown_chunksizes=True)


_MAKERS: dict[str, Callable[[Index, list[Any], Files, str], Any]] = {
    "DataFrame": _table,
    "Series": _table,
    "Array": _array,
    "Bag": _bag,
}


def _write_wanted(files: Files, folder: str, path: str, format: str, part: Any) -> tuple[str, int]:
    """Writes a part, in whatever process has it; nothing of it stays if another part has failed meanwhile."""
    done = _write(files, f"{folder}/{path}", format, part)
    if files.size(f"{folder}/{INDEX}") is None:
        # Whoever removed all parts may have come before this one.
        files.remove(f"{folder}/{path}")
        home = folder.rpartition("/")[0]
        files.remove_empty(folder, home, home.rpartition("/")[0])
    return done


def _write(files: Files, path: str, format: str, part: Any) -> tuple[str, int]:
    """Writes a part, and returns its hash and size."""
    if type(part).__name__ == "Series" and format == "dataframe":
        part = part.to_frame()
    elif format == "json":
        part = list(part)
    with files.writing(path) as sink:
        formats.write(format, part, sink)
    return sink.sha256, sink.size


def _read(files: Files, path: str, format: str, kind: str, digest: str) -> Any:
    """Reads a part, in whatever process needs it."""
    data = files.read(path)
    if data is None or sha256(data).hexdigest() != digest:
        how = "missing: the artifact was deleted, or replaced more than an hour ago" if data is None else "damaged"
        raise StorageError(f"{files.url(path)} is {how}; store it again")
    part = formats.value_of(format, "pandas.DataFrame", data)
    if kind == "Series" and format == "dataframe":
        return part.iloc[:, 0]
    return part


def _blocks(chunks: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    return list(itertools.product(*chunks))


def _divisions(table: Any) -> list[Any] | None:
    found = [each.item() if hasattr(each, "item") else each for each in table.divisions]
    return found if all(type(each) in (int, float, str) for each in found) else None

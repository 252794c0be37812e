"""A value made ready to be written: its format, and what writes each of its files."""

import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flowtilla.errors import ValueNotStorable
from flowtilla.storage import formats, partitioned
from flowtilla.storage.record import check_relative

Writer = Callable[[io.RawIOBase], None]


@dataclass(frozen=True)
class Content:
    """A value, ready to be written.

    Args:
        format: how it will be written.
        kind: its class.
        files: what writes each file, by its path in a folder; or one, by its suffix.
        parts: of a Dask collection, instead of files: what its processes write.
    """

    format: str
    kind: str
    files: dict[str, Writer] = field(default_factory=dict)
    parts: partitioned.Parts | None = None


def content_of(value: Any, format: str | None = None) -> Content:
    """Returns a value ready to be written.

    Args:
        value: what to store.
        format: how; None finds the format that gives the value back.

    Raises:
        ValueNotStorable: no format does, or the one asked for cannot hold the value.
    """
    if format is not None and format not in formats.SUFFIXES:
        raise ValueNotStorable(f"there is no format {format!r}: use one of {', '.join(formats.SUFFIXES)}")
    if partitioned.is_collection(value):
        if type(value).__name__ != "Delayed":
            return Content("partitioned", formats.kind_of(value), parts=partitioned.parts_of(value, format))
        value = value.compute()
    chosen = format or formats.format_of(value)
    if chosen in ("file", "folder"):
        return Content(chosen, "pathlib.Path", _paths(chosen, value))

    one = partial(formats.write, chosen, value, convert=format is not None)
    return Content(chosen, formats.kind_of(value), {formats.SUFFIXES[chosen]: one})


def _paths(format: str, value: Any) -> dict[str, Writer]:
    if not isinstance(value, (str, os.PathLike)):
        raise ValueNotStorable(f'format="{format}" takes a path, not a {formats.kind_of(value)}')
    path = Path(value)
    if format == "file":
        return {_suffix_of(path): _copier(path)}
    if not path.is_dir():
        raise ValueNotStorable(f"{path} is not a folder")
    files: dict[str, Writer] = {}
    for folder, folders, names in os.walk(path, onerror=_unreadable):
        for source in (Path(folder, name) for name in sorted(folders + names)):
            if source.is_symlink() or not (source.is_dir() or source.is_file()):
                raise ValueNotStorable(f"{source} is not a plain file or folder: leave it out of what you store")
            if source.is_file():
                files[_relative(source, path)] = _copier(source)
    return files


def _relative(source: Path, folder: Path) -> str:
    try:
        return check_relative(source.relative_to(folder).as_posix())
    except ValueError as error:
        raise ValueNotStorable(f"folder {folder}: {error}; rename it") from error


def _unreadable(error: OSError) -> None:
    raise ValueNotStorable(f"{error.filename} cannot be read: {error}") from error


def _copier(source: Path) -> Writer:
    def write(sink: io.RawIOBase) -> None:
        try:
            if not source.is_file():
                raise ValueNotStorable(f"{source} is not a file: give a Path to a file or folder that exists")
            with source.open("rb") as stream:
                shutil.copyfileobj(stream, sink, 1024 * 1024)
        except OSError as error:
            raise ValueNotStorable(f"{source} cannot be read: {error}") from error

    return write


def _suffix_of(path: Path) -> str:
    suffix = "".join(path.suffixes[-2:] if path.suffixes[-2:-1] == [".tar"] else path.suffixes[-1:])
    # Anything stranger adds nothing to the name that people or programs go by.
    plain = suffix.isascii() and suffix.replace(".", "").replace("-", "").replace("_", "").isalnum()
    return suffix if plain and len(suffix) <= 32 else ""

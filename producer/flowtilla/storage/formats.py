"""Typed content: which format a value is stored in, and how each is written and read.

Nothing here imports what a value comes from until it meets such a value.
"""

import io
from pathlib import Path
from typing import Any

from flowtilla.errors import FlowtillaError, StorageError, ValueNotStorable
from flowtilla.storage import frames, strict_json

#: Every format, and the suffix of its file; a file keeps its own, a folder has none.
SUFFIXES = {
    "text": ".txt",
    "bytes": ".bin",
    "json": ".json",
    "file": "",
    "folder": "",
    "partitioned": "",
    "dataframe": ".parquet",
    "csv": ".csv",
    "array": ".npy",
    "figure": ".png",
    "pickle": ".pkl",
}

_BUILTIN = {"str": "text", "bytes": "bytes"} | dict.fromkeys(
    ("dict", "list", "int", "float", "bool", "NoneType"), "json"
)
_EXACT = dict.fromkeys(frames.KINDS, "dataframe") | {"numpy.ndarray": "array", "numpy.memmap": "array"}
# Pictures come as many subclasses, and none of them is read back.
_FIGURES = {"matplotlib.Figure", "PIL.Image"}


def write(format: str, value: Any, sink: io.RawIOBase, *, convert: bool = False) -> None:
    """Writes a value in a format of one file.

    Args:
        format: the format.
        value: the value.
        sink: where to.
        convert: whether JSON may make a list of a tuple, and the like.

    Raises:
        ValueNotStorable: the format cannot hold it.
        StorageError: it cannot be written.
    """
    try:
        _write(format, value, sink, convert=convert)
    except FlowtillaError as error:
        raise error if isinstance(error, StorageError) else _refused(value, format, error) from error
    except Exception as error:
        raise _refused(value, format, error) from error


def value_of(format: str, kind: str, data: bytes) -> Any:
    """Returns the value that was written as `data`.

    Raises:
        StorageError: it cannot be read here.
    """
    try:
        return _read(format, kind, data)
    except ImportError as error:
        raise StorageError(
            f"reading a {kind} needs {error.name or error}, which is not installed here: install it, or use download()"
        ) from error
    except Exception as error:
        raise StorageError(f"the content is no readable {format}: {type(error).__name__}: {error}") from error


def _write(format: str, value: Any, sink: io.RawIOBase, *, convert: bool) -> None:
    if format in ("dataframe", "csv") and _name_of(type(value)) in frames.KINDS:
        (frames.write_csv if format == "csv" else frames.write_parquet)(_name_of(type(value)), value, sink)
    elif format in ("text", "csv") and isinstance(value, str):
        sink.write(value.encode())
    elif format == "bytes":
        sink.write(memoryview(value).cast("B"))
    elif format == "json":
        sink.write(strict_json.dump(value, convert=convert))
    elif format == "array":
        _write_array(value, sink)
    elif format == "figure":
        sink.write(_png(value))
    elif format == "pickle":
        import cloudpickle

        cloudpickle.dump(value, sink, protocol=5)
    else:
        raise TypeError(f"a {kind_of(value)} cannot be written as {format}")


def _read(format: str, kind: str, data: bytes) -> Any:
    if format == "text" or (format == "csv" and kind not in frames.KINDS):
        return data.decode()
    if format in ("bytes", "file", "figure"):
        return data
    if format == "json":
        return strict_json.load(data)
    if format == "dataframe":
        return frames.read_parquet(kind, data)
    if format == "csv":
        return frames.read_csv(kind, data)
    if format == "array":
        import numpy

        return numpy.load(io.BytesIO(data), allow_pickle=False)
    if format == "pickle":
        import pickle

        return pickle.loads(data)
    raise ValueError(f"format {format!r} is not known to this version of flowtilla")


def format_of(value: Any) -> str:
    kind = type(value)
    if kind.__module__ == "builtins" and kind.__qualname__ in _BUILTIN:
        return _BUILTIN[kind.__qualname__]
    if isinstance(value, Path):
        return "folder" if value.is_dir() else "file"
    if _name_of(kind) in _EXACT:
        return _EXACT[_name_of(kind)]
    if any(_name_of(base) in _FIGURES for base in kind.__mro__):
        return "figure"
    hint = ': store list(value), or pass format="json"' if kind is tuple else ""
    raise ValueNotStorable(
        f"a {kind_of(value)} cannot be stored as it is{hint}; what can: str, bytes, JSON (dict, list, numbers), a "
        "Path to a file or folder, a DataFrame, a numpy array, a matplotlib or PIL figure; anything else with "
        'format="pickle", which is read with read(allow_pickle=True)'
    )


def _refused(value: Any, format: str, error: Exception) -> ValueNotStorable:
    if isinstance(error, ImportError):
        return ValueNotStorable(f"storing a {kind_of(value)} as {format} needs {error.name or error}: install it")
    said = str(error) if isinstance(error, FlowtillaError) else f"{type(error).__name__}: {error}"
    return ValueNotStorable(f"a {kind_of(value)} cannot be stored as {format}: {said}")


def _write_array(value: Any, sink: io.RawIOBase) -> None:
    import numpy

    if not isinstance(value, numpy.ndarray) or isinstance(value, numpy.ma.MaskedArray):
        raise TypeError("it is not a plain numpy array: convert it with numpy.asarray")
    if value.dtype.hasobject:
        raise TypeError('it holds Python objects: convert it to numbers or text, or use format="pickle"')
    numpy.save(sink, value, allow_pickle=False)


def _png(value: Any) -> bytes:
    picture = io.BytesIO()
    if hasattr(value, "savefig"):
        value.savefig(picture, format="png")
    else:
        value.save(picture, format="PNG")
    return picture.getvalue()


def _name_of(kind: type) -> str:
    """Returns a class's name as its users write it: `pandas.DataFrame`."""
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def kind_of(value: Any) -> str:
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return _name_of(kind) if _name_of(kind) in _EXACT else f"{kind.__module__}.{kind.__qualname__}"

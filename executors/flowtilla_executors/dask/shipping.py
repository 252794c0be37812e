"""Local modules and packages that travel to the cluster."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from flowtilla.errors import ConfigurationError

#: The names that each folder of this process brought.
_shipped: dict[str, frozenset[str]] = {}


def packed(sources: Sequence[str]) -> dict[str, bytes]:
    """Returns the files of modules and packages, by their path below a folder of `sys.path`.

    Args:
        sources: paths of `.py` files and of package folders.

    Raises:
        ConfigurationError: one is neither.
    """
    files: dict[str, bytes] = {}
    for source in map(Path, sources):
        if source.is_file() and source.suffix == ".py":
            files[source.name] = source.read_bytes()
        elif source.is_dir():
            plain = (path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
            files |= {path.relative_to(source.parent).as_posix(): path.read_bytes() for path in sorted(plain)}
        else:
            raise ConfigurationError(f"`py_modules` names {str(source)!r}, which is no .py file and no package folder")
    return files


def digest(files: Mapping[str, bytes]) -> str:
    """Returns a name for what the files hold."""
    hashes = [f"{path} {hashlib.sha256(content).hexdigest()}" for path, content in sorted(files.items())]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]


def names(files: Mapping[str, bytes]) -> frozenset[str]:
    """Returns the modules and packages that the files are, as an import names them."""
    return frozenset(path.partition("/")[0].removesuffix(".py") for path in files)


def unpack(files: Mapping[str, bytes], below: Path) -> None:
    """Makes the files the first that an import finds here, and forgets what others that were held."""
    folder = str(below / f"flowtilla-modules-{digest(files)}")
    shipped = names(files)
    if next((each for each in sys.path if _shipped.get(each, frozenset()) & shipped), None) == folder:
        return
    if folder in sys.path:
        sys.path.remove(folder)
    else:
        _write(files, Path(folder))
    sys.path.insert(0, folder)
    _shipped[folder] = shipped
    for name in [name for name in sys.modules if name.partition(".")[0] in shipped]:
        del sys.modules[name]


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)

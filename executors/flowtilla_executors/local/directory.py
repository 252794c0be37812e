"""A private folder that never outlives the process that made it, however that process ends."""

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
import weakref
from pathlib import Path

_PREFIX = "flowtilla-"
_LOCK = "lock"

#: What follows the prefix: random bytes, as digits.
_BYTES = 8
_DIGITS = "[0-9a-f]" * (2 * _BYTES)

#: Seconds after which a folder that has not its name yet is not being made any more.
_MAKING = 60.0


def bases() -> list[Path]:
    """Returns where private folders go: shared memory where there is some, and the disk for when it is full."""
    found = [Path("/dev/shm"), Path(tempfile.gettempdir())]
    return [base for base in dict.fromkeys(found) if base.is_dir() and os.access(base, os.W_OK)]


class PrivateDirectory:
    """A new folder that only this user can enter; `close`, or the end of the process, removes it.

    While the process lives it holds a lock in the folder. One that `kill -9` left behind is held by nobody, and the
    next process that makes a folder there removes it.
    """

    def __init__(self, base: Path) -> None:
        _sweep(base)
        name = _PREFIX + secrets.token_hex(_BYTES)
        hidden = base / f".{name}"
        hidden.mkdir(mode=0o700)
        self._lock = _locked(hidden)
        # It appears under its name only now that it is locked, or a sweep might take it.
        self.path = hidden.rename(base / name)
        self.close = weakref.finalize(self, remove, self.path)


def remove(path: Path) -> None:
    """Removes a folder and all that is in it, though others may be writing there."""
    shutil.rmtree(path, ignore_errors=True)


def _sweep(base: Path) -> None:
    for path in base.glob(_PREFIX + _DIGITS):
        _remove_if_left(path, 0.0)
    # Whose process was killed before it had locked them.
    for path in base.glob(f".{_PREFIX}{_DIGITS}"):
        _remove_if_left(path, _MAKING)


def _remove_if_left(path: Path, age: float) -> None:
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid() or time.time() - found.st_mtime < age:
            return
        # Where there is no lock, somebody wrote to the folder while it was being removed.
        lock = _locked(path)
    except OSError:  # somebody holds it, or it has just gone
        return
    remove(path)
    os.close(lock)


def _locked(directory: Path) -> int:
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor

"""A private folder that never outlives the process that made it, however that process ends."""

import fcntl
import os
import secrets
import shutil
import tempfile
import weakref
from pathlib import Path

_PREFIX = "flowtilla-"
_LOCK = "lock"


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
        name = _PREFIX + secrets.token_hex(8)
        hidden = base / f".{name}"
        hidden.mkdir(mode=0o700)
        self._lock = _locked(hidden, os.O_CREAT)
        # It appears under its name only now that it is locked, or a sweep might take it.
        self.path = hidden.rename(base / name)
        self.close = weakref.finalize(self, remove, self.path)


def remove(path: Path) -> None:
    """Removes a folder and all that is in it, though others may be writing there."""
    shutil.rmtree(path, ignore_errors=True)


def _sweep(base: Path) -> None:
    for path in base.glob(f"{_PREFIX}*"):
        try:
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            lock = _locked(path, 0)
        except OSError:  # somebody holds it, or it is not one of ours, or it has just gone
            continue
        remove(path)
        os.close(lock)


def _locked(directory: Path, flags: int) -> int:
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor

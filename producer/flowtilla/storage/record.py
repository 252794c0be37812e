"""What is known about one stored version, and which of it may come from outside."""

import re
import secrets
import threading
import time
import unicodedata
from hashlib import sha256
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from flowtilla.names import Name
from flowtilla.untrusted import Moment

#: The name of a version: microseconds since the epoch, then chance. Sorts by time.
VERSION = re.compile(r"\d{16}-[0-9a-f]{8}\Z", re.ASCII)

# Each could mean another file than it seems to, on some system, or none: a drive, an escape, an object's version, half
# a surrogate pair.
_TREACHEROUS = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]|(\A|/)[A-Za-z]:|%[0-9A-Fa-f]{2}|\?versionId=")

_NOWHERE = frozenset({"", ".", ".."})

#: Formats of several files.
FOLDERS = frozenset({"folder", "partitioned"})

_lock = threading.Lock()
_last = 0


def new_version(after: str | None) -> str:
    """Returns the name of a new version, later than every other of this process and than `after`."""
    global _last
    with _lock:
        # `after` may come from a machine whose clock is ahead.
        _last = max(time.time_ns() // 1000, _last + 1, int(after[:16]) + 1 if after else 0)
        return f"{_last:016d}-{secrets.token_hex(4)}"


def version_age(version: str) -> float:
    """Returns how many seconds ago a version was made."""
    return time.time() - int(version[:16]) / 1e6


def check_relative(path: str) -> str:
    """Returns the path of a file inside an artifact if it stays there on every file system.

    Characters that only look like a dot or a slash lead nowhere, and are allowed; those that somebody's normalisation
    (NFKC) makes one are taken for what they would become.

    Raises:
        ValueError: it does not.
    """
    if not _is_plain(path) or not (path.isascii() or _is_plain(unicodedata.normalize("NFKC", path))):
        raise ValueError(f"{path!r} is not a plain relative path: it could lead outside its artifact")
    return path


def _is_plain(path: str) -> bool:
    return not _TREACHEROUS.search(path) and _NOWHERE.isdisjoint(path.split("/"))


def _check_version(version: str) -> str:
    if not VERSION.match(version):
        raise ValueError(f"{version!r} is not a version of an artifact")
    return version


class ArtifactRecord(BaseModel):
    """What is known about one stored version.

    Args:
        namespace, name: whose version it is.
        version: sorts by time.
        format: how the value was written: `text`, `json`, `dataframe`, ...
        kind: the value's class, as `module.QualName`.
        size: bytes, of all files together.
        sha256: of the file; for a folder, of the list of its files with their hashes.
        files: the size of each file, by its path inside the version.
        created: seconds since the epoch.
        metadata: what its author added.
        run_id, stage: where it was made; None outside a run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    namespace: Name
    name: Name
    version: Annotated[str, AfterValidator(_check_version)]
    format: str
    kind: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    files: dict[Annotated[str, AfterValidator(check_relative)], int]
    created: Moment
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    run_id: str | None = None
    stage: str | None = None

    @model_validator(mode="after")
    def _one_file_unless_folder(self) -> Self:
        if self.format not in FOLDERS and len(self.files) != 1:
            raise ValueError(f"an artifact of format {self.format} has one file, this one {len(self.files)}")
        # Only who writes a file gives it its name: what was written as something else never is a pickle.
        if self.format == "pickle" and not self.file.endswith(".pkl"):
            raise ValueError(f"{self.file!r} was not written as a pickle")
        return self

    @property
    def file(self) -> str:
        """The one file of an artifact that is no folder."""
        return next(iter(self.files))


def folder_digest(hashes: dict[str, str]) -> str:
    """Returns the hash of a folder, from the hash of each of its files."""
    return sha256("".join(f"{digest} {path}\n" for path, digest in sorted(hashes.items())).encode()).hexdigest()

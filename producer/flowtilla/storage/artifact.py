"""One stored value, as readers hold it."""

import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import JsonValue, ValidationError

from flowtilla.errors import StorageError
from flowtilla.storage import formats, partitioned
from flowtilla.storage.files import Files
from flowtilla.storage.record import FOLDERS, ArtifactRecord, folder_digest

_CHUNK = 1024 * 1024


class Artifact:
    """One version of a stored value. It stays readable for an hour after a newer one has replaced it.

    Args:
        record: what is known about it.
        files: where it lies.
    """

    def __init__(self, record: ArtifactRecord, files: Files) -> None:
        self.record = record
        self._files = files
        self._folder = files.folder(record.namespace, record.name, record.version)

    @property
    def name(self) -> str:
        """Its name in its namespace."""
        return self.record.name

    @property
    def namespace(self) -> str:
        """Where it lives."""
        return self.record.namespace

    @property
    def format(self) -> str:
        """How it was written."""
        return self.record.format

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.record.size

    @property
    def sha256(self) -> str:
        """Its hash."""
        return self.record.sha256

    @property
    def metadata(self) -> dict[str, JsonValue]:
        """What its author added."""
        return self.record.metadata

    @property
    def created(self) -> float:
        """When it was made, in seconds since the epoch."""
        return self.record.created

    @property
    def path(self) -> str:
        """Where it is: a plain path on local disks, else a URL."""
        return self._files.url(self._folder if self._is_folder else self._path(self.record.file))

    def read(self, allow_pickle: bool = False) -> Any:
        """Returns the value, as the class it had; files and figures as bytes, a folder as bytes by relative path.

        A Dask collection is one again; its parts are read and verified when it is computed.

        Args:
            allow_pickle: run what an artifact of format `pickle` says; only for those you trust.

        Raises:
            StorageError: it is a pickle and you did not allow it, it is gone, or it is not what was written.
        """
        if not allow_pickle:
            self._refuse(self.format)
        if self.format == "partitioned":
            return self._collection(allow_pickle)
        contents = {path: self._bytes(path) for path in self.record.files}
        self._verify({path: sha256(data).hexdigest() for path, data in contents.items()})
        if self.format == "folder":
            return contents
        try:
            return formats.value_of(self.format, self.record.kind, contents[self.record.file])
        except StorageError as error:
            raise StorageError(f"{self!r}: {error}") from error

    def download(self, to: str | Path) -> Path:
        """Copies it, verified, to a local path, and returns that.

        Args:
            to: the file or folder to make; or a folder that exists, in which it is made under its own name.

        Raises:
            StorageError: it is gone, not what was written, or cannot be written there.
        """
        target = Path(to)
        if target.is_dir():
            target /= self.name if self._is_folder else self.record.file
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # Beside its target, so that it appears there whole.
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".flowtilla-") as temporary:
                folder = Path(temporary, "content")
                folder.mkdir()
                self._verify({path: self._copy(path, folder / path) for path in self.record.files})
                (folder if self._is_folder else folder / self.record.file).replace(target)
        except OSError as error:
            raise StorageError(
                f"{self!r} could not be downloaded to {target}: {error}; is there room, and may you write?"
            ) from error
        return target

    def open(self) -> BinaryIO:
        """Returns a stream of its bytes, which nothing verifies.

        Raises:
            StorageError: it is gone, or it is a folder.
        """
        if self._is_folder:
            raise StorageError(f"{self!r} is a folder, and has no one stream of bytes: use download() or read()")
        return self._files.open(self._path(self.record.file))

    def _collection(self, allow_pickle: bool) -> Any:
        data = self._bytes(partitioned.INDEX)
        try:
            index = partitioned.Index.model_validate_json(data)
        except ValidationError as error:
            raise StorageError(f"{self!r} at {self.path} is damaged: its index cannot be read") from error
        # Which vouches for the hashes that the index has of all the others.
        self._verify(index.files | {partitioned.INDEX: sha256(data).hexdigest()})
        if not allow_pickle:
            self._refuse(index.format)
        return partitioned.collection_of(index, self._files, self._folder)

    def _refuse(self, format: str) -> None:
        if format == "pickle":
            raise StorageError(
                f'{self!r} was stored with format="pickle", and reading a pickle runs code: if you trust whoever '
                "stored it, use read(allow_pickle=True)"
            )

    @property
    def _is_folder(self) -> bool:
        return self.format in FOLDERS

    def __repr__(self) -> str:
        return f"<Artifact {self.namespace}/{self.name} {self.format}, {self.size:,} bytes>"

    def _path(self, relative: str) -> str:
        return f"{self._folder}/{relative}"

    def _bytes(self, relative: str) -> bytes:
        data = self._files.read(self._path(relative))
        if data is None:
            raise StorageError(
                f"{self!r}: {self._files.url(self._path(relative))} is missing: the artifact was deleted, or replaced "
                "more than an hour ago; get it again"
            )
        return data

    def _copy(self, relative: str, target: Path) -> str:
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = sha256()
        with self._files.open(self._path(relative)) as source, target.open("wb") as copy:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                copy.write(chunk)
        return digest.hexdigest()

    def _verify(self, hashes: dict[str, str]) -> None:
        found = folder_digest(hashes) if self._is_folder else hashes[self.record.file]
        if found != self.sha256:
            raise StorageError(
                f"{self!r} at {self.path} is damaged: its sha256 is {found}, and {self.sha256} was written; "
                "store it again"
            )

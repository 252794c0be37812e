"""The file system under the store: where things are, and how they are read and written without leaving the place."""

import copy
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from hashlib import sha256
from typing import Any, BinaryIO

from flowtilla.settings import StorageSettings
from flowtilla.storage.layout import Layout
from flowtilla.storage.trouble import told


class Sink(io.RawIOBase):
    """Counts and hashes what is written through it.

    Args:
        inner: the file.
        told: turns the file system's errors into ours, so that nobody takes them for the value's own.
    """

    def __init__(self, inner: BinaryIO, told: Callable[[], AbstractContextManager[None]]) -> None:
        self._inner = inner
        self._told = told
        self._hash = sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with self._told():
            self._inner.write(data)
        self._hash.update(data)
        self.size += memoryview(data).nbytes
        return memoryview(data).nbytes

    def tell(self) -> int:
        return self.size

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


class Files:
    """One area of the storage. The constructor does no I/O.

    Args:
        settings: which file system, and where on it.
        area: `artifacts`, `results`, `logs`, `objects`, `checkpoints` or `staged`.
    """

    def __init__(self, settings: StorageSettings, area: str) -> None:
        self._layout = Layout(settings, area)
        self._area = area
        self.settings = self._layout.settings
        self.folder = self._layout.folder
        self.url = self._layout.url
        self._fs: Any = None
        self._pid = 0

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process it opens the storage anew.
        return Files, (self.settings, self._area)

    @property
    def fs(self) -> Any:
        """The fsspec file system, made on first use in each process."""
        # One made before a fork has its event loop in the parent.
        if self._fs is None or self._pid != os.getpid():
            with told(self.settings, "open the storage at", self._layout.base):
                import fsspec

                options = copy.deepcopy(self.settings.parameters)
                if self._layout.buckets:
                    # Other processes write too, so a listing must never be remembered.
                    options["use_listings_cache"] = False
                self._fs, self._pid = fsspec.filesystem(self.settings.protocol, **options), os.getpid()
        return self._fs

    def namespaces(self) -> list[str]:
        """Returns what the area is divided into."""
        if not self.settings.bucket_per_namespace:
            return self.children(self.folder())
        prefix = f"{self._layout.base}-"
        with told(self.settings, "list the buckets of", self._layout.base):
            buckets = [bucket.strip("/") for bucket in self.fs.ls("", detail=False)]
        found = [bucket.removeprefix(prefix) for bucket in buckets if bucket.startswith(prefix)]
        return [namespace for namespace in found if self.children(self.folder(namespace))]

    def prepare(self, namespace: str) -> None:
        """Makes the namespace's bucket, where each has its own."""
        if self.settings.bucket_per_namespace:
            bucket = self._layout.bucket(namespace)
            with told(self.settings, "make the bucket", bucket), suppress(FileExistsError):
                self.fs.mkdir(bucket)

    @contextmanager
    def writing(self, path: str) -> Iterator[Sink]:
        """Opens a new file; what it held is lost when the block raises."""
        writing = partial(told, self.settings, "write", self.url(path))
        self._layout.check(path)
        with writing():
            self._make_parent(path)
            handle = self.fs.open(path, "wb")
        try:
            yield Sink(handle, writing)
            with writing():
                handle.close()
        except BaseException:
            _abandon(handle)
            raise

    def replace(self, path: str, data: bytes, *, aside: str) -> None:
        """Writes a small file such that readers see the old one or the new one, whole.

        Args:
            path, data: what is to hold what.
            aside: the beginning of a path in the same folder, under which to write it first where that is needed.
        """
        self._layout.check(path)
        with told(self.settings, "write", self.url(path)):
            if self._layout.objects:
                self.fs.pipe_file(path, data)
                return
            self._make_parent(path)
            temporary = f"{aside}.{os.urandom(4).hex()}.tmp"
            try:
                self.fs.pipe_file(temporary, data)
                self.fs.mv(temporary, path)
            except BaseException:
                with suppress(Exception):
                    self.fs.rm_file(temporary)
                raise

    def read(self, path: str) -> bytes | None:
        """Returns what a file holds, or None when there is none."""
        self._layout.check(path)
        with told(self.settings, "read", self.url(path)):
            try:
                return bytes(self.fs.cat_file(path))
            except FileNotFoundError:
                self._check_bucket()
                return None

    def read_all(self, paths: list[str]) -> list[bytes | None]:
        """Returns what each file holds, several at a time where a read is a request."""
        if not self._layout.buckets:
            return [self.read(path) for path in paths]
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(self.read, paths))

    def open(self, path: str) -> BinaryIO:
        """Returns a stream of what a file holds.

        Raises:
            StorageError: there is no such file, or it cannot be read.
        """
        self._layout.check(path)
        with told(self.settings, "read", self.url(path)):
            # The file system's own stream in memory is one object, with one position, for all readers.
            stream = io.BytesIO(self.fs.cat_file(path)) if self.settings.protocol == "memory" else self.fs.open(path)
            return stream

    def size(self, path: str) -> int | None:
        """Returns the size of a file, or None when there is none."""
        self._layout.check(path)
        with told(self.settings, "read", self.url(path)):
            try:
                return int(self.fs.info(path)["size"])
            except FileNotFoundError:
                return None

    def children(self, path: str) -> list[str]:
        """Returns the names of what a folder holds, sorted; nothing when there is no such folder."""
        self._layout.check(path)
        with told(self.settings, "list", self.url(path)):
            try:
                return sorted({child.rstrip("/").rpartition("/")[2] for child in self.fs.ls(path, detail=False)})
            except (FileNotFoundError, NotADirectoryError):
                self._check_bucket()
                return []

    def remove(self, path: str) -> None:
        """Removes a file, or a folder with all it holds, if it is there."""
        self._layout.check(path)
        with told(self.settings, "remove", self.url(path)), suppress(FileNotFoundError):
            self.fs.rm(path, recursive=True)

    def remove_empty(self, *folders: str) -> None:
        """Removes folders that hold nothing, where empty folders exist at all."""
        for folder in folders if not self._layout.objects else ():
            self._layout.check(folder)
            with suppress(OSError):
                self.fs.rmdir(folder)

    def _make_parent(self, path: str) -> None:
        if self._layout.objects:
            return
        parent = path.rpartition("/")[0]
        try:
            self.fs.makedirs(parent, exist_ok=True)
        except FileNotFoundError:
            # Someone removed a folder above, which was empty for a moment.
            self.fs.makedirs(parent, exist_ok=True)

    def _check_bucket(self) -> None:
        bucket = self._layout.base.partition("/")[0]
        if self._layout.buckets and not self.settings.bucket_per_namespace and not self.fs.exists(bucket):
            raise FileNotFoundError(f"there is no bucket {bucket}")


def _abandon(handle: Any) -> None:
    """Closes a file that is not to be; on an object store nothing of it remains."""
    with suppress(Exception):
        handle.discard()
        # Closing would complete the upload.
        handle.closed = True
    with suppress(Exception):
        handle.close()

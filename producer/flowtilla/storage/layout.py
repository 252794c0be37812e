"""Where things are, by area, namespace and name, and that a path leads there and nowhere else."""

import os
from pathlib import Path

from flowtilla.errors import ConfigurationError, StorageError
from flowtilla.settings import StorageSettings

_LOCAL = frozenset({"file", "local"})
# One write of an object shows it whole or not at all; elsewhere a rename does.
_OBJECTS = frozenset({"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
_BUCKET = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")


class Layout:
    """The paths of one area.

    Args:
        settings: which file system, and where on it.
        area: the folder of the area.

    Raises:
        ConfigurationError: the settings contradict each other.
    """

    def __init__(self, settings: StorageSettings, area: str) -> None:
        self.local = settings.protocol in _LOCAL
        self.objects = settings.protocol in _OBJECTS
        self.buckets = self.objects and settings.protocol != "memory"
        self.base = self._base_of(settings)
        self.settings = settings.model_copy(update={"base_path": self.base})
        self._area = area

    def folder(self, namespace: str | None = None, *parts: str) -> str:
        """Returns the path of a namespace, or of something in it; of the whole area without one."""
        if namespace is None:
            return f"{self.base}/{self._area}"
        if self.settings.bucket_per_namespace:
            return "/".join((self.bucket(namespace), self._area, *parts))
        return "/".join((self.base, self._area, namespace, *parts))

    def bucket(self, namespace: str) -> str:
        """Returns the bucket of a namespace.

        Raises:
            StorageError: its name can be no bucket's.
        """
        bucket = f"{self.base}-{namespace}"
        if not 3 <= len(bucket) <= 63 or set(bucket) - _BUCKET or bucket.endswith("-"):
            raise StorageError(
                f"namespace {namespace!r} cannot have a bucket of its own: {bucket!r} must be 3 to 63 of the "
                "characters a-z 0-9 . - and end in a letter or digit; rename it, or turn "
                "storage.bucket_per_namespace off"
            )
        return bucket

    def url(self, path: str) -> str:
        """Returns a path as people use it: a plain one on local disks, else with its protocol."""
        return path if self.local else f"{self.settings.protocol}://{path}"

    def check(self, path: str) -> None:
        """Refuses a path that a symbolic link below the base leads elsewhere; names alone cannot tell.

        Raises:
            StorageError: it does.
        """
        if not self.local:
            return
        base = self.base or "/"
        expected = os.path.realpath(base).rstrip("/") + path.removeprefix(self.base)
        found = os.path.realpath(path)
        if found != expected:
            raise StorageError(
                f"{path} leads to {found}, outside its place: nothing below {base} may be a symbolic link, so remove it"
            )

    def _base_of(self, settings: StorageSettings) -> str:
        base = settings.base_path.removeprefix(f"{settings.protocol}://")
        if settings.bucket_per_namespace and (not self.buckets or "/" in base.strip("/")):
            raise ConfigurationError(
                "storage.bucket_per_namespace needs an object store, and in storage.base_path the beginning of a "
                f"bucket's name; protocol is {settings.protocol} and base_path {base!r}"
            )
        if self.local:
            # Once and here, so that no later change of the working directory moves the store.
            return str(Path(base).expanduser().absolute()).rstrip("/")
        if set(base) & set("*?["):
            raise ConfigurationError(f"storage.base_path {base!r} must not have any of * ? [")
        if self.buckets and base.strip("/")[:1] in ("", ".", "~"):
            raise ConfigurationError(
                f"storage.base_path {base!r} is not a bucket: with protocol {settings.protocol} give my-bucket, "
                "or my-bucket/folder"
            )
        return base.strip("/") if self.objects else base.rstrip("/")

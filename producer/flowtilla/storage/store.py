"""The store: named values in namespaces, each replaced atomically."""

import builtins
import time
from collections.abc import Callable
from typing import Any

from flowtilla.errors import ArtifactNotFound, InvalidName
from flowtilla.names import check_name
from flowtilla.settings import StorageSettings
from flowtilla.storage import strict_json
from flowtilla.storage.artifact import Artifact
from flowtilla.storage.content import content_of
from flowtilla.storage.files import Files
from flowtilla.storage.record import ArtifactRecord, new_version
from flowtilla.storage.versions import Versions


class ArtifactStore:
    """Named values in namespaces, each replaced atomically. The constructor does no I/O.

    It may be used from several threads, and in several processes at once.

    Args:
        settings: which file system, and where on it; a relative `base_path` counts from the working directory now.
        area: what is kept: `artifacts`, `results`, `logs`, `objects` or `checkpoints`.

    Raises:
        ConfigurationError: the settings contradict each other.
    """

    def __init__(self, settings: StorageSettings, area: str = "artifacts") -> None:
        self._area = check_name(area, "area")
        self._files = Files(settings, area)

    @property
    def settings(self) -> StorageSettings:
        """The settings, with an absolute `base_path`: what other processes should be given."""
        return self._files.settings

    def stage(
        self,
        namespace: str,
        name: str,
        value: Any,
        *,
        format: str | None = None,
        metadata: dict[str, Any] | None = None,
        run_id: str | None = None,
        stage: str | None = None,
        note: Callable[[str], None] | None = None,
    ) -> ArtifactRecord:
        """Writes a new version that no reader sees before it is published.

        Args:
            namespace, name: whose version it is.
            value: what to store.
            format: how; None finds the format that gives the value back.
            metadata: what to remember with it: JSON.
            run_id, stage: where it is made.
            note: told the version before anything of it is written.

        Raises:
            InvalidName: the namespace or the name breaks the rule.
            ValueNotStorable: no format holds the value.
            StorageError: it cannot be written; nothing of it stays.
        """
        versions = self._versions(namespace, name)
        remembered = strict_json.load(strict_json.dump(metadata or {}, what="metadata"))
        content = content_of(value, format)
        current = versions.current()
        version = new_version(after=current.version if current else None)
        self._files.prepare(namespace)
        if note is not None:
            note(version)
        digest, sizes = versions.write(version, content)
        return ArtifactRecord(
            namespace=namespace,
            name=name,
            version=version,
            format=content.format,
            kind=content.kind,
            size=sum(sizes.values()),
            sha256=digest,
            files=sizes,
            created=time.time(),
            metadata=remembered,
            run_id=run_id,
            stage=stage,
        )

    def publish(self, record: ArtifactRecord) -> bool:
        """Makes a staged version the one that readers get; doing it again changes nothing.

        Returns:
            Whether it is; not when a newer version was published before.

        Raises:
            StorageError: its files are gone, or the storage fails.
        """
        return self._versions(record.namespace, record.name).publish(record)

    def discard(self, namespace: str, name: str, version: str) -> None:
        """Removes a staged version that will not be published; a published one stays."""
        self._versions(namespace, name).discard(version)

    def put(
        self,
        namespace: str,
        name: str,
        value: Any,
        *,
        format: str | None = None,
        metadata: dict[str, Any] | None = None,
        run_id: str | None = None,
        stage: str | None = None,
    ) -> Artifact:
        """Stages and publishes a value in one step; the arguments and errors are those of `stage`."""
        record = self.stage(namespace, name, value, format=format, metadata=metadata, run_id=run_id, stage=stage)
        self.publish(record)
        return self.artifact(record)

    def get(self, namespace: str, name: str, version: str | None = None) -> Artifact:
        """Returns an artifact.

        Args:
            namespace, name: which.
            version: another one than the current; those that were replaced are there for an hour.

        Raises:
            ArtifactNotFound: there is none.
        """
        versions = self._versions(namespace, name)
        found = versions.current() if version is None else versions.published(version)
        if found is None:
            wanted = f"{name!r}" if version is None else f"{name!r} of version {version!r}"
            raise ArtifactNotFound(
                f"namespace {namespace!r} has no {wanted} among its {self._area} in {self._url(namespace)}; "
                f"flowtilla.artifacts.list(namespace={namespace!r}) says which artifacts it has"
            )
        return self.artifact(found)

    def artifact(self, record: ArtifactRecord) -> Artifact:
        """Returns the artifact that a record describes, staged or published, without looking whether it is there."""
        return Artifact(record, self._files)

    def exists(self, namespace: str, name: str) -> bool:
        """Returns whether the namespace has an artifact of this name."""
        return self._versions(namespace, name).current() is not None

    def list(self, namespace: str) -> builtins.list[Artifact]:
        """Returns the namespace's artifacts, sorted by name."""
        folder = self._files.folder(check_name(namespace, "namespace"))
        names = [self._versions(namespace, name) for name in self._files.children(folder) if _is_name(name)]
        pointers = self._files.read_all([versions.pointer for versions in names])
        records = [versions.parsed(data) for versions, data in zip(names, pointers, strict=True)]
        return [self.artifact(record) for record in records if record is not None]

    def delete(self, namespace: str, name: str) -> bool:
        """Removes an artifact and its old versions, and returns whether there was one; what is staged stays."""
        return self._versions(namespace, name).delete()

    def purge(self, namespace: str, name: str) -> None:
        """Removes everything of a name, staged versions included."""
        self._versions(namespace, name).purge()

    def namespaces(self) -> builtins.list[str]:
        """Returns the namespaces that hold something, sorted."""
        return sorted(name for name in self._files.namespaces() if _is_name(name))

    def __repr__(self) -> str:
        return f"<ArtifactStore {self._area} in {self._url()}>"

    def _versions(self, namespace: str, name: str) -> Versions:
        return Versions(self._files, namespace, name)

    def _url(self, namespace: str | None = None) -> str:
        return self._files.url(self._files.folder(namespace))


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except InvalidName:
        return False
    return True

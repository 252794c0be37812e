"""The versions of one name: written aside, then published by one small write that readers follow.

{base_path}/{area}/{namespace}/{name}/{version}/...    a version's files, never changed
{base_path}/{area}/{namespace}/{name}/{version}.json   its record, once it was published
{base_path}/{area}/{namespace}/{name}/current.json     the record of the version that readers get
"""

import logging

from pydantic import ValidationError

from flowtilla.errors import StorageError
from flowtilla.names import check_name
from flowtilla.storage.content import Content
from flowtilla.storage.files import Files
from flowtilla.storage.record import FOLDERS, VERSION, ArtifactRecord, folder_digest, version_age

_CURRENT = "current.json"

# A reader that holds a replaced version has this long to read it.
_KEEP_SECONDS = 3600.0

_log = logging.getLogger(__name__)


class Versions:
    """The versions of one name. The constructor does no I/O.

    Args:
        files: where they lie.
        namespace, name: whose they are.

    Raises:
        InvalidName: the namespace or the name breaks the rule.
    """

    def __init__(self, files: Files, namespace: str, name: str) -> None:
        self._files = files
        self._namespace = check_name(namespace, "namespace")
        self._name = check_name(name, "artifact name")
        self._home = files.folder(namespace, name)

    @property
    def pointer(self) -> str:
        """The file that says which version is current."""
        return f"{self._home}/{_CURRENT}"

    def current(self) -> ArtifactRecord | None:
        """Returns the record of the version that readers get."""
        return self.parsed(self._files.read(self.pointer))

    def published(self, version: str) -> ArtifactRecord | None:
        """Returns the record of a version, if it was ever published and is still there."""
        return self.parsed(self._files.read(f"{self._home}/{version}.json")) if VERSION.match(version) else None

    def parsed(self, data: bytes | None) -> ArtifactRecord | None:
        """Returns the record that a file holds; whoever may write there decides what it says, so it is checked."""
        if data is None:
            return None
        try:
            record = ArtifactRecord.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            why = f"{'.'.join(map(str, first['loc']))!r}: {first['msg']}"
        else:
            if (record.namespace, record.name) == (self._namespace, self._name):
                return record
            why = f"it is that of {record.namespace}/{record.name}"
        raise StorageError(
            f"the record of {self._namespace}/{self._name} at {self._files.url(self._home)} is damaged ({why}): "
            "delete the artifact and store it again"
        )

    def write(self, version: str, content: Content) -> tuple[str, dict[str, int]]:
        """Writes a version's files, all or none, and returns its hash and the size of each file."""
        hashes: dict[str, str] = {}
        sizes: dict[str, int] = {}
        try:
            if content.parts is not None:
                hashes, sizes = content.parts.write(self._files, f"{self._home}/{version}")
            for key, write in content.files.items():
                path = key if content.format in FOLDERS else f"{self._name}{key}"
                with self._files.writing(f"{self._home}/{version}/{path}") as sink:
                    write(sink)
                hashes[path], sizes[path] = sink.sha256, sink.size
        except BaseException:
            self._try_to_remove(version)
            raise
        return folder_digest(hashes) if content.format in FOLDERS else next(iter(hashes.values())), sizes

    def publish(self, record: ArtifactRecord) -> bool:
        """Makes a version the current one, unless a newer one is, and returns whether it is."""
        replaced = self.current()
        if replaced and replaced.version >= record.version:
            return replaced.version == record.version
        # Not each file of a folder, which may have thousands: what removes one removes them all.
        for path, size in list(record.files.items())[:1]:
            if self._files.size(f"{self._home}/{record.version}/{path}") != size:
                raise StorageError(f"version {record.version} of {self._home} cannot be published: {path} is not there")
        self._write_record(f"{self._home}/{record.version}.json", record)
        newest: ArtifactRecord | None = record
        while newest is not None:
            self._write_record(self.pointer, newest)
            current, children = newest, self._files.children(self._home)
            # Another publisher may have come between our look and our write; whoever wrote last puts things right.
            later = max(_published(children), default="")
            newest = self.published(later) if later > current.version else None
        self._prune(current, replaced, children)
        return current.version == record.version

    def discard(self, version: str) -> None:
        """Removes a version, unless it was published."""
        if VERSION.match(version) and self.published(version) is None:
            self._remove(version)

    def delete(self) -> bool:
        """Removes the current version and all old ones, and returns whether there was a current one."""
        children = self._files.children(self._home)
        # Only these: what appears from here on belongs to somebody who is putting a new one.
        gone = _published(children) | {version for version in _versions(children) if _is_old(version)}
        self._files.remove(self.pointer)
        for version in gone:
            self._remove(version)
        self._remove_empty()
        return _CURRENT in children

    def purge(self) -> None:
        """Removes everything, staged versions included."""
        self._files.remove(self.pointer)
        self._files.remove(self._home)
        self._remove_empty()

    def _write_record(self, path: str, record: ArtifactRecord) -> None:
        self._files.replace(path, record.model_dump_json().encode(), aside=f"{self._home}/{record.version}")

    def _prune(self, current: ArtifactRecord, replaced: ArtifactRecord | None, children: list[str]) -> None:
        kept = {current.version, replaced.version if replaced else ""}
        for version in _versions(children) - kept:
            # A later one was staged by somebody who may yet publish it.
            if version < current.version and _is_old(version):
                self._try_to_remove(version)

    def _try_to_remove(self, version: str) -> None:
        try:
            self._remove(version)
        except StorageError as error:
            # What was asked for is done, or has failed for a better reason.
            _log.warning("version %s of %s/%s was left behind: %s", version, self._namespace, self._name, error)

    def _remove(self, version: str) -> None:
        for child in self._files.children(self._home):
            if child.partition(".")[0] == version:
                self._files.remove(f"{self._home}/{child}")
        self._remove_empty()

    def _remove_empty(self) -> None:
        self._files.remove_empty(self._home, self._files.folder(self._namespace))


def _versions(children: list[str]) -> set[str]:
    return {version for child in children if VERSION.match(version := child.partition(".")[0])}


def _published(children: list[str]) -> set[str]:
    return {version for version in _versions(children) if f"{version}.json" in children}


def _is_old(version: str) -> bool:
    return version_age(version) > _KEEP_SECONDS

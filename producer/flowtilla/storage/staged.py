"""What a run staged, noted before it is written: whatever becomes of the attempt, it is found and removed in the end.

{base_path}/staged/{namespace}/{run_id}/{artifact's namespace}.{its name}.{version}    empty
"""

from flowtilla.errors import InvalidName
from flowtilla.names import check_name
from flowtilla.settings import StorageSettings
from flowtilla.storage.files import Files
from flowtilla.storage.store import ArtifactStore


class Staged:
    """The notes of one run. The constructor does no I/O.

    Args:
        settings: the storage's.
        namespace, run_id: whose they are.

    Raises:
        InvalidName: the namespace or the run's id breaks the rule.
    """

    def __init__(self, settings: StorageSettings, namespace: str, run_id: str) -> None:
        self._namespace = check_name(namespace, "namespace")
        self._files = Files(settings, "staged")
        self._home = self._files.folder(namespace, check_name(run_id, "run id"))

    def note(self, namespace: str, name: str, version: str) -> None:
        """Takes note of a version of an artifact that is about to be staged.

        Raises:
            StorageError: the storage fails.
        """
        self._files.prepare(self._namespace)
        path = f"{self._home}/{check_name(namespace)}.{check_name(name)}.{version}"
        self._files.replace(path, b"", aside=path)

    def purge(self) -> None:
        """Removes what was staged and never published, and the notes.

        Raises:
            StorageError: the storage fails.
        """
        for child in self._files.children(self._home):
            namespace, _, rest = child.partition(".")
            name, _, version = rest.partition(".")
            try:
                ArtifactStore(self._files.settings).discard(namespace, name, version)
            except InvalidName:
                continue  # none of ours
        self._files.remove(self._home)
        self._files.remove_empty(self._files.folder(self._namespace))

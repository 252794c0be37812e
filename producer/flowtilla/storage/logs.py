"""The whole log of a run, kept after its end."""

from typing import Any

from flowtilla.settings import StorageSettings
from flowtilla.storage.results import own_record
from flowtilla.storage.store import ArtifactStore

_AREA = "logs"


def store_log(settings: StorageSettings, namespace: str, run_id: str, text: str) -> dict[str, Any]:
    """Stores a run's log and returns a reference to it; nobody sees it until the run's record carries the reference.

    Raises:
        StorageError: it cannot be written.
    """
    record = ArtifactStore(settings, _AREA).stage(namespace, run_id, text, format="text", run_id=run_id)
    return record.model_dump(mode="json")


def load_log(settings: StorageSettings, namespace: str, run_id: str, reference: Any) -> str:
    """Returns the log of a run that a reference of `store_log` leads to.

    Raises:
        StorageError: the reference is damaged or another run's, or the log is gone.
    """
    return str(ArtifactStore(settings, _AREA).artifact(own_record(reference, namespace, run_id)).read())

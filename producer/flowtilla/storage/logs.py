"""The whole log of a run, kept after its end."""

from collections.abc import Mapping
from typing import Any

from flowtilla.settings import StorageSettings
from flowtilla.storage.results import record_of
from flowtilla.storage.store import ArtifactStore

_AREA = "logs"


def store_log(settings: StorageSettings, namespace: str, run_id: str, text: str) -> dict[str, Any]:
    """Stores a run's log and returns a reference to it; nobody sees it until the run's record carries the reference.

    Raises:
        StorageError: it cannot be written.
    """
    record = ArtifactStore(settings, _AREA).stage(namespace, run_id, text, format="text", run_id=run_id)
    return record.model_dump(mode="json")


def load_log(settings: StorageSettings, reference: Mapping[str, Any]) -> str:
    """Returns the log that a reference of `store_log` leads to.

    Raises:
        StorageError: the reference is damaged, or the log is gone.
    """
    return str(ArtifactStore(settings, _AREA).artifact(record_of(reference)).read())

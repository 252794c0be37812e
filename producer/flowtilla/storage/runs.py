"""All that a run keeps for itself: its results, checkpoints and log."""

from flowtilla.settings import StorageSettings
from flowtilla.storage.store import ArtifactStore


def forget_run(settings: StorageSettings, namespace: str, run_id: str) -> None:
    """Removes what a run kept for itself; its artifacts belong to the namespace and stay.

    Raises:
        StorageError: the storage fails.
    """
    for area in ("results", "checkpoints", "logs"):
        ArtifactStore(settings, area).purge(namespace, run_id)

"""The results of runs that are too large, or not JSON, for the queue.

A result is stored in the process that has the value, in a folder of its run, and never published: only the reference
that the run's record carries leads to it, so what an attempt stored that lost its lease is never found.
"""

from collections.abc import Mapping
from typing import Any

from flowtilla.errors import StorageError
from flowtilla.settings import StorageSettings
from flowtilla.storage.record import ArtifactRecord
from flowtilla.storage.store import ArtifactStore

_AREA = "results"


def store_result(settings: Mapping[str, Any], namespace: str, run_id: str, value: Any) -> dict[str, Any]:
    """Stores a result of a run and returns a reference to it that people can read.

    Args:
        settings: the storage's, as data, with an absolute `base_path`.
        namespace, run_id: whose result it is; a run with several final stages stores several.
        value: the result.

    Raises:
        ValueNotStorable: no format holds it.
        StorageError: it cannot be written.
    """
    store = ArtifactStore(StorageSettings.model_validate(settings), _AREA)
    return _reference(store, store.stage(namespace, run_id, value, run_id=run_id))


def own_reference(settings: StorageSettings, namespace: str, run_id: str, reference: Any) -> dict[str, Any]:
    """Returns a run's reference anew, from the record in it, which is checked as `own_record` does."""
    record = reference.get("record") if isinstance(reference, dict) else None
    return _reference(ArtifactStore(settings, _AREA), own_record(record, namespace, run_id))


def load_result(settings: StorageSettings, namespace: str, run_id: str, reference: Any) -> Any:
    """Returns the result of a run that a reference of `store_result` leads to.

    Raises:
        StorageError: the reference is damaged or another run's, or the result is gone.
    """
    record = reference.get("record") if isinstance(reference, dict) else None
    return ArtifactStore(settings, _AREA).artifact(own_record(record, namespace, run_id)).read()


def own_record(data: Any, namespace: str, run_id: str) -> ArtifactRecord:
    """Returns the record of what a run keeps for itself, checked: whoever writes to Redis decides what it says.

    Args:
        data: the record.
        namespace, run_id: whose it must be; the folder that it leads to is then that run's.

    Raises:
        StorageError: it is no record, or one of another run.
    """
    record = record_of(data)
    if (record.namespace, record.name, record.run_id) != (namespace, run_id, run_id):
        raise StorageError(
            f"the record leads to {record.namespace}/{record.name}, which is not run {run_id} of namespace "
            f"{namespace}: somebody else changed what Redis keeps of the run"
        )
    return record


def _reference(store: ArtifactStore, record: ArtifactRecord) -> dict[str, Any]:
    where = store.artifact(record).path
    return {"artifact": where, "format": record.format, "size": record.size, "record": record.model_dump(mode="json")}


def record_of(data: Any) -> ArtifactRecord:
    """Returns a record that came as data, checked.

    Raises:
        StorageError: it is not one.
    """
    try:
        return ArtifactRecord.model_validate(data)
    except ValueError as error:
        raise StorageError(f"this is no record of something stored: {error}") from error

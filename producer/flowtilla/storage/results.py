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
    record = store.stage(namespace, run_id, value, run_id=run_id)
    where = store.artifact(record).path
    return {"artifact": where, "format": record.format, "size": record.size, "record": record.model_dump(mode="json")}


def load_result(settings: StorageSettings, reference: Mapping[str, Any]) -> Any:
    """Returns the result that a reference of `store_result` leads to.

    Raises:
        StorageError: the reference is damaged, or the result is gone.
    """
    return ArtifactStore(settings, _AREA).artifact(record_of(reference.get("record"))).read()


def record_of(data: Any) -> ArtifactRecord:
    """Returns a record that came as data, checked.

    Raises:
        StorageError: it is not one.
    """
    try:
        return ArtifactRecord.model_validate(data)
    except ValueError as error:
        raise StorageError(f"this is no record of something stored: {error}") from error

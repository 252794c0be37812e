"""The values of committed stages, kept so that a later attempt of the run need not make them again.

Saved and loaded in a stage's process, in a folder of the run, and never published: only the record that was committed
leads to a value. They are pickles, so only what a run saved in its own folder is ever read: whatever Redis says, it
can choose between the values that this run saved, and nothing else.
"""

from collections.abc import Mapping
from typing import Any

from flowtilla.errors import StorageError
from flowtilla.settings import StorageSettings
from flowtilla.storage.results import own_record
from flowtilla.storage.store import ArtifactStore

_AREA = "checkpoints"


def save_checkpoint(settings: Mapping[str, Any], namespace: str, run_id: str, key: str, value: Any) -> dict[str, Any]:
    """Saves a value of any class that pickles, and returns the record that finds it again.

    Args:
        settings: the storage's, as data, with an absolute `base_path`.
        namespace, run_id: whose value it is.
        key: which of the run's values, for people.
        value: what to save.

    Raises:
        ValueNotStorable: it cannot be pickled.
        StorageError: it cannot be written.
    """
    record = _store(settings).stage(namespace, run_id, value, format="pickle", run_id=run_id, stage=key)
    return record.model_dump(mode="json")


def load_checkpoint(settings: Mapping[str, Any], namespace: str, run_id: str, record: Any) -> Any:
    """Returns a value that a run saved with `save_checkpoint`.

    Raises:
        StorageError: the record is no checkpoint of this run, or the value is gone or damaged.
    """
    found = own_record(record, namespace, run_id)
    if found.format not in ("pickle", "partitioned"):
        raise StorageError(f"{found.namespace}/{found.name} is no checkpoint of a run")
    return _store(settings).artifact(found).read(allow_pickle=True)


def _store(settings: Mapping[str, Any]) -> ArtifactStore:
    return ArtifactStore(StorageSettings.model_validate(settings), _AREA)

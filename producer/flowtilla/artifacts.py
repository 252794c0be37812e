"""What stages keep for others, by name: `put("summary", {...})`, `get("summary").read()`.

Inside a stage the run's storage and namespace are meant, and what is put is seen by others once the stage is committed.
Outside one the configuration's are, and what is put is seen at once.
"""

import builtins
from functools import partial
from typing import Any

from flowtilla.context import Context, current
from flowtilla.storage.artifact import Artifact
from flowtilla.storage.place import namespace_here, store_here
from flowtilla.storage.record import ArtifactRecord
from flowtilla.storage.staged import Staged

_AREA = "artifacts"


def put(
    name: str,
    value: Any,
    *,
    namespace: str | None = None,
    format: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> Artifact:
    """Stores a value under a name, in place of what was there.

    Args:
        name: of letters, digits, `_` and `-`.
        value: text, bytes, JSON, a `Path` to a file or folder, a DataFrame, a numpy array, a figure.
        namespace: where; the run's own when None.
        format: how to write it; None finds the format that gives the value back. `"pickle"` takes anything.
        metadata: what to remember with it: JSON.

    Raises:
        InvalidName: the name or namespace breaks the rule.
        ValueNotStorable: no format holds the value.
        StorageError: it cannot be written.
    """
    context, store, place = current(), store_here(_AREA), namespace_here(namespace)
    if context is None:
        return store.put(place, name, value, format=format, metadata=metadata)
    # Whatever becomes of this attempt, the sweep after the run's retention finds what it never published.
    note = partial(Staged(store.settings, context.namespace, context.run_id).note, place, name)
    record = store.stage(
        place, name, value, format=format, metadata=metadata, run_id=context.run_id, stage=context.stage, note=note
    )
    # Published with the stage's commit: an attempt that lost its lease must not be seen.
    context._staged.append(record.model_dump(mode="json"))
    return store.artifact(record)


def get(name: str, *, namespace: str | None = None, version: str | None = None) -> Artifact:
    """Returns an artifact; in a stage, also one that this stage has put.

    Args:
        name: which.
        namespace: where; the run's own when None.
        version: another one than the current; those that were replaced are there for an hour.

    Raises:
        ArtifactNotFound: there is none.
        StorageError: it cannot be read.
    """
    context, store, place = current(), store_here(_AREA), namespace_here(namespace)
    for record in reversed(_staged(context, place)):
        if record.name == name and version in (None, record.version):
            return store.artifact(record)
    return store.get(place, name, version)


def exists(name: str, *, namespace: str | None = None) -> bool:
    """Returns whether there is an artifact of this name; in a stage, also one that this stage has put."""
    context, store, place = current(), store_here(_AREA), namespace_here(namespace)
    return any(record.name == name for record in _staged(context, place)) or store.exists(place, name)


def list(*, namespace: str | None = None) -> builtins.list[Artifact]:
    """Returns the namespace's artifacts sorted by name; in a stage, also those that this stage has put."""
    context, store, place = current(), store_here(_AREA), namespace_here(namespace)
    found = {artifact.name: artifact for artifact in store.list(place)}
    found |= {record.name: store.artifact(record) for record in _staged(context, place)}
    return [found[name] for name in sorted(found)]


def delete(name: str, *, namespace: str | None = None) -> bool:
    """Removes an artifact at once, and returns whether there was one; in a stage, also what this stage has put."""
    context, store, place = current(), store_here(_AREA), namespace_here(namespace)
    mine = [record for record in _staged(context, place) if record.name == name]
    if context is not None:
        context._staged[:] = [one for one in context._staged if (one["namespace"], one["name"]) != (place, name)]
    for record in mine:
        store.discard(record.namespace, record.name, record.version)
    return store.delete(place, name) or bool(mine)


def _staged(context: Context | None, namespace: str) -> builtins.list[ArtifactRecord]:
    records = [ArtifactRecord.model_validate(one) for one in context._staged] if context else []
    return [record for record in records if record.namespace == namespace]

"""Values by key, shared between stages: in the cluster's memory where the executor offers one, else in storage."""

from typing import Any, Protocol

from flowtilla.context import current
from flowtilla.errors import ArtifactNotFound, ObjectNotFound, StorageError
from flowtilla.names import check_name
from flowtilla.storage.place import namespace_here, store_here

_AREA = "objects"
_STRATEGIES = ("fallback", "memory", "artifact")


class ObjectMemory(Protocol):
    """The memory of a cluster: what an executor offers so that objects need no storage.

    Values are of any class that pickles, and copied: what one holder does to a value no other sees.
    """

    def put(self, namespace: str, key: str, value: Any) -> None:
        """Keeps a value."""

    def get(self, namespace: str, key: str) -> Any:
        """Returns a value, or raises `KeyError`."""

    def delete(self, namespace: str, key: str) -> bool:
        """Removes a value, and returns whether there was one."""

    def exists(self, namespace: str, key: str) -> bool:
        """Returns whether there is a value."""


_memory: ObjectMemory | None = None


def use_memory(memory: ObjectMemory | None) -> None:
    """Sets the memory of this process; executors call it where stages run."""
    global _memory
    _memory = memory


def put(key: str, value: Any, *, namespace: str | None = None, strategy: str = "fallback") -> None:
    """Keeps a value under a key, at once.

    Args:
        key: of letters, digits, `_` and `-`.
        value: for memory, anything that pickles; for storage, what `flowtilla.artifacts.put` takes.
        namespace: where; the run's own when None.
        strategy: `memory`, `artifact` (storage), or `fallback`: memory where there is one, else storage.

    Raises:
        InvalidName: the key or namespace breaks the rule.
        ValueNotStorable: storage cannot hold the value.
        StorageError: there is no such strategy, no memory here, or the storage fails.
    """
    place, memory = _place(key, namespace), _memory_for(strategy)
    if memory is not None:
        memory.put(place, key, value)
    else:
        store_here(_AREA).put(place, key, value)


def get(key: str, *, namespace: str | None = None, strategy: str = "fallback") -> Any:
    """Returns the value of a key; `fallback` looks in memory, then in storage.

    Raises:
        ObjectNotFound: there is none.
        StorageError: there is no such strategy, no memory here, or the storage fails.
    """
    place, memory = _place(key, namespace), _memory_for(strategy)
    if memory is not None:
        try:
            return memory.get(place, key)
        except KeyError:
            if strategy == "memory":
                raise ObjectNotFound(_absence(key, place, strategy)) from None
    try:
        return store_here(_AREA).get(place, key).read()
    except ArtifactNotFound:
        raise ObjectNotFound(_absence(key, place, strategy)) from None


def exists(key: str, *, namespace: str | None = None, strategy: str = "fallback") -> bool:
    """Returns whether `get` would find a value."""
    place, memory = _place(key, namespace), _memory_for(strategy)
    if memory is not None and memory.exists(place, key):
        return True
    return strategy != "memory" and store_here(_AREA).exists(place, key)


def delete(key: str, *, namespace: str | None = None, strategy: str = "fallback") -> bool:
    """Removes a key, with `fallback` from memory and storage both, and returns whether there was one."""
    place, memory = _place(key, namespace), _memory_for(strategy)
    found = memory is not None and memory.delete(place, key)
    stored = strategy != "memory" and store_here(_AREA).delete(place, key)
    return found or stored


def _place(key: str, namespace: str | None) -> str:
    check_name(key, "object key")
    return check_name(namespace_here(namespace), "namespace")


def _memory_for(strategy: str) -> ObjectMemory | None:
    if strategy not in _STRATEGIES:
        raise StorageError(f"there is no strategy {strategy!r}: use one of {', '.join(_STRATEGIES)}")
    if strategy == "memory" and _memory is None:
        where = f"the {context.executor} executor" if (context := current()) else "code outside a stage"
        raise StorageError(f'{where} has no memory for objects: use strategy="artifact", or "fallback"')
    return _memory if strategy != "artifact" else None


def _absence(key: str, namespace: str, strategy: str) -> str:
    looked = {"memory": "memory", "artifact": "storage"}.get(strategy) or (
        "memory and storage" if _memory is not None else "storage, for there is no memory here"
    )
    return f"namespace {namespace!r} has no object {key!r}; looked in {looked}"

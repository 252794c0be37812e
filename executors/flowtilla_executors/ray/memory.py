"""What `flowtilla.objects` keeps in a Ray cluster's memory: values that every stage on it can reach."""

from typing import Any

import ray

from flowtilla_executors.ray.lines import NAMESPACE
from flowtilla_executors.values import Snapshot, lent

_NAME = "flowtilla-objects"


class Shelf:
    """An actor that owns the objects, so that they outlive the processes that put them there."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], Any] = {}

    def put(self, namespace: str, key: str, value: Snapshot) -> None:
        self._objects[namespace, key] = ray.put(value)

    def get(self, namespace: str, key: str) -> list[Any]:
        """Returns a reference to the object, in a list, or an empty one."""
        return [self._objects[namespace, key]] if (namespace, key) in self._objects else []

    def delete(self, namespace: str, key: str) -> bool:
        return self._objects.pop((namespace, key), None) is not None

    def exists(self, namespace: str, key: str) -> bool:
        return (namespace, key) in self._objects


class RayMemory:
    """Objects of all stages on the cluster, whoever's worker they belong to; everybody gets a copy of its own.

    They live as long as the cluster.
    """

    def put(self, namespace: str, key: str, value: Any) -> None:
        kind: Any = ray.remote(Shelf)
        options = {"lifetime": "detached", "get_if_exists": True, "num_cpus": 0}
        shelf = kind.options(name=_NAME, namespace=NAMESPACE, **options).remote()
        ray.get(shelf.put.remote(namespace, key, lent(value)))

    def get(self, namespace: str, key: str) -> Any:
        """Returns the object's value.

        Raises:
            KeyError: there is none.
        """
        found = self._ask("get", namespace, key)
        if not found:
            raise KeyError(key)
        kept: Snapshot = ray.get(found[0])
        return kept.load()

    def delete(self, namespace: str, key: str) -> bool:
        return bool(self._ask("delete", namespace, key))

    def exists(self, namespace: str, key: str) -> bool:
        return bool(self._ask("exists", namespace, key))

    def _ask(self, question: str, namespace: str, key: str) -> Any:
        """Returns the shelf's answer, or None when nobody has put anything there."""
        try:
            shelf = ray.get_actor(_NAME, namespace=NAMESPACE)
        except ValueError:
            return None
        return ray.get(getattr(shelf, question).remote(namespace, key))

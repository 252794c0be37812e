"""What `flowtilla.objects` keeps in memory: values that every stage of this executor can reach."""

import contextlib
import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowtilla import objects
from flowtilla_executors.local.files import write
from flowtilla_executors.values import Snapshot, snapshot


class ThreadMemory:
    """Objects of stages that share this process; everybody gets a copy of its own."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], Snapshot] = {}

    def put(self, namespace: str, key: str, value: Any) -> None:
        self._objects[namespace, key] = snapshot(value)

    def get(self, namespace: str, key: str) -> Any:
        """Returns the object's value.

        Raises:
            KeyError: there is none.
        """
        return self._objects[namespace, key].load()

    def delete(self, namespace: str, key: str) -> bool:
        return self._objects.pop((namespace, key), None) is not None

    def exists(self, namespace: str, key: str) -> bool:
        return (namespace, key) in self._objects


class FileMemory:
    """Objects of stages in several processes: a file each, replaced as a whole.

    Args:
        directories: where they go; the first that has room.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = directories

    def put(self, namespace: str, key: str, value: Any) -> None:
        content = pickle.dumps(snapshot(value), protocol=5)
        path = write([content], self._name(namespace, key), self._directories)
        for other in self._paths(namespace, key):
            if other != path:
                other.unlink(missing_ok=True)

    def get(self, namespace: str, key: str) -> Any:
        """Returns the object's value.

        Raises:
            KeyError: there is none.
        """
        for path in self._paths(namespace, key):
            with contextlib.suppress(FileNotFoundError):
                return pickle.loads(path.read_bytes()).load()
        raise KeyError(key)

    def delete(self, namespace: str, key: str) -> bool:
        found = self.exists(namespace, key)
        for path in self._paths(namespace, key):
            path.unlink(missing_ok=True)
        return found

    def exists(self, namespace: str, key: str) -> bool:
        return any(path.exists() for path in self._paths(namespace, key))

    def _paths(self, namespace: str, key: str) -> list[Path]:
        return [directory / self._name(namespace, key) for directory in self._directories]

    @staticmethod
    def _name(namespace: str, key: str) -> str:
        return "object-" + hashlib.sha256(f"{namespace}/{key}".encode()).hexdigest()


def lend(memory: ThreadMemory | FileMemory | None) -> None:
    """Makes the memory the one that `flowtilla.objects` uses in this process; None takes it away."""
    objects.use_memory(memory)

"""What `flowtilla.objects` keeps in memory: in the scheduler, which outlives workers and flowtilla processes."""

from typing import Any

from distributed import Worker
from distributed.protocol import to_serialize
from distributed.utils import sync

from flowtilla_executors.values import snapshot


class SchedulerMemory:
    """The objects, as the pickled snapshots that came; the scheduler never looks inside."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], Any] = {}

    def handle(self, action: str, namespace: str, key: str, value: Any = None) -> Any:
        """Does what a worker asks for.

        Args:
            action: `put`, `get`, `delete` or `exists`.
            namespace, key: of what.
            value: to put.
        """
        name = namespace, key
        if action == "put":
            self._objects[name] = value
        elif action == "get":
            return {"found": name in self._objects, "value": self._objects.get(name)}
        elif action == "delete":
            return self._objects.pop(name, None) is not None
        return name in self._objects


class WorkerMemory:
    """The same objects, as stages on a worker see them; everybody gets a copy of its own.

    Args:
        worker: whose scheduler to ask.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def put(self, namespace: str, key: str, value: Any) -> None:
        self._ask("put", namespace, key, value=to_serialize(snapshot(value)))

    def get(self, namespace: str, key: str) -> Any:
        """Returns the object's value.

        Raises:
            KeyError: there is none.
        """
        answer = self._ask("get", namespace, key)
        if not answer["found"]:
            raise KeyError(key)
        return answer["value"].load()

    def delete(self, namespace: str, key: str) -> bool:
        return bool(self._ask("delete", namespace, key))

    def exists(self, namespace: str, key: str) -> bool:
        return bool(self._ask("exists", namespace, key))

    def _ask(self, action: str, namespace: str, key: str, **value: Any) -> Any:
        ask = self._worker.scheduler.flowtilla_memory
        return sync(self._worker.loop, ask, action=action, namespace=namespace, key=key, **value)

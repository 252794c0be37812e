"""`flowtilla.objects`: values by key, in memory where there is one, else in storage."""

import contextvars
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowtilla import objects
from flowtilla.context import Context, entered
from flowtilla.errors import InvalidName, ObjectNotFound, StorageError, ValueNotStorable
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactStore


class Memory:
    """What an executor offers, in its smallest form."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}

    def put(self, namespace: str, key: str, value: Any) -> None:
        self.kept[namespace, key] = pickle.dumps(value)

    def get(self, namespace: str, key: str) -> Any:
        return pickle.loads(self.kept[namespace, key])

    def delete(self, namespace: str, key: str) -> bool:
        return self.kept.pop((namespace, key), None) is not None

    def exists(self, namespace: str, key: str) -> bool:
        return (namespace, key) in self.kept


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[ArtifactStore]:
    """The code of each test runs as a stage, without a memory."""
    settings = StorageSettings(base_path=str(tmp_path / "storage"))
    context = Context("run-1", "ns", "w", "one", attempt=1, executor="local", _storage=settings)
    with entered(context):
        yield ArtifactStore(settings, "objects")


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory()
    objects.use_memory(memory)
    yield memory
    objects.use_memory(None)


@pytest.mark.parametrize("strategy", ["fallback", "artifact"])
def test_storage_keeps_objects(store: ArtifactStore, strategy: str) -> None:
    """Without a memory an object lies in storage, seen at once by everybody."""
    objects.put("key", {"a": 1}, strategy=strategy)
    assert store.get("ns", "key").read() == {"a": 1}
    assert objects.exists("key", strategy=strategy)
    assert objects.get("key", strategy=strategy) == {"a": 1}
    assert objects.delete("key", strategy=strategy)
    assert not objects.delete("key", strategy=strategy)
    assert not objects.exists("key", strategy=strategy)


@pytest.mark.parametrize("strategy", ["fallback", "memory"])
def test_memory_keeps_objects(store: ArtifactStore, memory: Memory, strategy: str) -> None:
    """With a memory an object of any class lies there and not in storage; None is a value like any other."""
    for value in ({1, 2}, None):
        objects.put("key", value, strategy=strategy)
        assert objects.get("key", strategy=strategy) == value
    assert objects.exists("key", strategy=strategy)
    assert list(memory.kept) == [("ns", "key")]
    assert store.namespaces() == []
    assert objects.delete("key", strategy=strategy)
    assert not objects.exists("key", strategy=strategy)


def test_fallback_looks_in_memory_first_then_in_storage(memory: Memory) -> None:
    """An object in storage is found where memory has none, hidden where it has one, and deleted with it."""
    objects.put("key", "stored", strategy="artifact")
    assert objects.exists("key")
    assert objects.get("key") == "stored"
    objects.put("key", "remembered")
    assert objects.get("key") == "remembered"
    assert objects.get("key", strategy="artifact") == "stored"
    assert objects.delete("key")
    assert not objects.exists("key")


@pytest.mark.parametrize(
    ("strategy", "looked"), [("fallback", "memory and storage"), ("memory", "memory"), ("artifact", "storage")]
)
def test_a_missing_key_says_where_it_was_looked_for(memory: Memory, strategy: str, looked: str) -> None:
    """The error is a KeyError that names key, namespace and place."""
    with pytest.raises(KeyError) as caught:
        objects.get("key", namespace="other", strategy=strategy)
    assert isinstance(caught.value, ObjectNotFound)
    assert str(caught.value) == f"namespace 'other' has no object 'key'; looked in {looked}"


def test_without_memory_the_error_says_so() -> None:
    """Where there is no memory, `fallback` says that it looked in storage only, and `memory` that there is none."""
    with pytest.raises(ObjectNotFound, match="storage, for there is no memory here"):
        objects.get("key")
    for use in (
        lambda: objects.put("key", 1, strategy="memory"),
        lambda: objects.get("key", strategy="memory"),
        lambda: objects.exists("key", strategy="memory"),
        lambda: objects.delete("key", strategy="memory"),
    ):
        with pytest.raises(StorageError, match=r'the local executor has no memory .* strategy="artifact"'):
            use()


def test_an_unknown_strategy_is_refused() -> None:
    """A strategy that does not exist is named, with those that do."""
    with pytest.raises(StorageError, match="'disk': use one of fallback, memory, artifact"):
        objects.put("key", 1, strategy="disk")


@pytest.mark.parametrize("bad", ["../x", "", "a/b", "key\n"])
def test_bad_keys_and_namespaces_are_refused(memory: Memory, bad: str) -> None:
    """Keys and namespaces obey the rule of names, in memory too."""
    for use in (
        lambda: objects.put(bad, 1),
        lambda: objects.get(bad),
        lambda: objects.exists("key", namespace=bad),
        lambda: objects.delete(bad),
        lambda: objects.put("key", 1, namespace=bad, strategy="memory"),
    ):
        with pytest.raises(InvalidName):
            use()
    assert memory.kept == {}


def test_namespaces_are_apart(memory: Memory) -> None:
    """The same key in another namespace is another object."""
    objects.put("key", 1)
    assert not objects.exists("key", namespace="other")


def test_storage_refuses_what_it_cannot_give_back() -> None:
    """What no format holds is refused, not pickled behind the user's back."""
    with pytest.raises(ValueNotStorable):
        objects.put("key", {1, 2})


def test_outside_a_stage_the_configuration_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a stage, the configuration says where."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWTILLA_CONFIG", raising=False)
    Path("flowtilla.yaml").write_text("storage: {base_path: ./kept}\n")
    # In an empty context no stage is running.
    contextvars.Context().run(objects.put, "key", 1)
    assert ArtifactStore(StorageSettings(base_path="kept"), "objects").get("default", "key").read() == 1

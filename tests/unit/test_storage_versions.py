"""Versions: staged aside, published at once, replaced, kept for a while, gone."""

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flowtilla.errors import ArtifactNotFound, ConfigurationError, StorageError, ValueNotStorable
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactRecord, ArtifactStore, record
from flowtilla.storage.record import new_version


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArtifactStore]:
    base = str(tmp_path / "storage") if request.param == "file" else f"memory-of-{tmp_path.name}-{os.getpid()}"
    yield ArtifactStore(StorageSettings(protocol=request.param, base_path=base))


def test_the_constructor_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is made without I/O, and knows its absolute place whatever becomes of the working directory."""
    monkeypatch.chdir(tmp_path)
    store = ArtifactStore(StorageSettings(base_path="./here"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.settings.base_path == str(tmp_path / "here")
    assert store.put("ns", "value", 1).path.startswith(str(tmp_path / "here" / "artifacts" / "ns" / "value"))


def test_staged_is_unseen_until_published(store: ArtifactStore) -> None:
    """A staged version is in no list and found by no name or version; published, it is."""
    staged = store.stage("ns", "value", 1, metadata={"why": ["test"]}, run_id="run", stage="one")
    assert not store.exists("ns", "value")
    assert store.list("ns") == []
    for version in (None, staged.version):
        with pytest.raises(ArtifactNotFound):
            store.get("ns", "value", version)
    assert store.publish(staged)
    found = store.get("ns", "value")
    assert found.record == staged
    assert found.metadata == {"why": ["test"]}
    assert (found.record.run_id, found.record.stage) == ("run", "one")
    assert store.exists("ns", "value")


def test_a_record_travels_as_json(store: ArtifactStore) -> None:
    """A record is plain data, and publishes as well after a journey."""
    staged = ArtifactRecord.model_validate(store.stage("ns", "value", 1).model_dump(mode="json"))
    assert store.publish(staged)
    assert store.get("ns", "value").read() == 1


def test_publishing_is_idempotent_and_monotonic(store: ArtifactStore) -> None:
    """Publishing again changes nothing, and an older version never replaces a newer one."""
    old, new = store.stage("ns", "value", "old"), store.stage("ns", "value", "new")
    assert store.publish(new)
    assert not store.publish(old)
    assert store.publish(new)
    assert store.get("ns", "value").read() == "new"


def test_a_late_publisher_puts_things_right(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a newer version is published between a publisher's look and its write, the newer one stays."""
    old, new = store.stage("ns", "value", "old"), store.stage("ns", "value", "new")
    files = store._files
    size = files.size

    def meanwhile(path: str) -> int | None:
        monkeypatch.setattr(files, "size", size)
        assert store.publish(new)
        return size(path)

    monkeypatch.setattr(files, "size", meanwhile)
    assert not store.publish(old)
    assert store.get("ns", "value").read() == "new"


def test_replaced_versions_stay_readable(store: ArtifactStore) -> None:
    """A reader that holds the replaced version still reads it, also by its id."""
    first = store.put("ns", "value", 1)
    second = store.put("ns", "value", 2)
    assert first.read() == 1
    assert store.get("ns", "value", first.record.version).read() == 1
    assert store.get("ns", "value").record == second.record


def test_old_versions_are_pruned(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an hour, versions that are neither current nor just replaced go, abandoned ones too; later ones stay."""
    monkeypatch.setattr(record, "_last", 0)
    first, abandoned, second = (
        store.put("ns", "value", 1),
        store.stage("ns", "value", "never"),
        store.put("ns", "value", 2),
    )
    now = record.time.time_ns()
    monkeypatch.setattr(record.time, "time_ns", lambda: now + 7200 * 10**9)
    monkeypatch.setattr(record.time, "time", lambda: now / 1e9 + 7200)
    third = store.stage("ns", "value", 3)
    later = store.stage("ns", "value", 4)
    store.publish(third)
    assert second.read() == 2
    for gone in (first, store.artifact(abandoned)):
        with pytest.raises(StorageError, match="missing"):
            gone.read()
    with pytest.raises(ArtifactNotFound, match="of version"):
        store.get("ns", "value", first.record.version)
    assert store.publish(later)


def test_discarded_is_gone(store: ArtifactStore) -> None:
    """Discarding removes what was staged and cannot touch what was published."""
    staged = store.stage("ns", "value", 1)
    store.discard("ns", "value", staged.version)
    store.discard("ns", "value", staged.version)
    with pytest.raises(StorageError, match="not there"):
        store.publish(staged)
    assert not store.exists("ns", "value")
    published = store.put("ns", "value", 2)
    store.discard("ns", "value", published.record.version)
    assert store.get("ns", "value").read() == 2


def test_deleting(store: ArtifactStore) -> None:
    """Deleting says whether there was something, leaves nothing, and leaves alone what is being put meanwhile."""
    store.put("ns", "value", 1)
    store.put("ns", "value", 2)
    store.put("ns", "other", 3)
    staged = store.stage("ns", "value", 4)
    assert store.delete("ns", "value")
    assert not store.delete("ns", "value")
    assert [artifact.name for artifact in store.list("ns")] == ["other"]
    assert store.publish(staged)
    assert store.get("ns", "value").read() == 4
    assert store.delete("ns", "value")
    assert store.delete("ns", "other")
    assert store.namespaces() == []


def test_purging_removes_staged_versions_too(store: ArtifactStore) -> None:
    """Purging leaves nothing of a name, published or not, and is harmless when there is nothing."""
    store.stage("ns", "value", 1)
    store.put("ns", "value", 2)
    store.purge("ns", "value")
    store.purge("ns", "value")
    assert store.namespaces() == []


def test_lists_are_sorted_and_namespaces_apart(store: ArtifactStore) -> None:
    """A list has the namespace's artifacts by name; the same name elsewhere is another artifact."""
    for name in ("b", "a", "B"):
        store.put("one", name, name)
    store.put("two", "a", "other")
    assert [artifact.name for artifact in store.list("one")] == ["B", "a", "b"]
    assert store.namespaces() == ["one", "two"]
    assert store.list("three") == []
    assert store.get("one", "a").read() == "a"


def test_areas_are_apart(store: ArtifactStore) -> None:
    """Results are no artifacts."""
    ArtifactStore(store.settings, "results").put("ns", "value", 1)
    assert not store.exists("ns", "value")


def test_what_is_missing_is_told(store: ArtifactStore) -> None:
    """The error is a KeyError too, names what was asked for, and says how to see what there is."""
    with pytest.raises(KeyError, match=re.escape("flowtilla.artifacts.list(namespace='ns')")) as caught:
        store.get("ns", "value")
    assert isinstance(caught.value, ArtifactNotFound)
    assert str(caught.value).startswith("namespace 'ns' has no 'value' among its artifacts in ")


def test_metadata_must_be_json(store: ArtifactStore) -> None:
    """Metadata that would not come back is refused before anything is written."""
    with pytest.raises(ValueNotStorable, match=r"metadata\['a'\] is a set"):
        store.put("ns", "value", 1, metadata={"a": {1}})
    assert store.namespaces() == []


def test_a_version_of_a_clock_that_is_ahead_is_passed(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put last is current, even when what was there was made by a machine with a later clock."""
    monkeypatch.setattr(record, "_last", 0)
    now = record.time.time_ns()
    with monkeypatch.context() as ahead:
        ahead.setattr(record.time, "time_ns", lambda: now + 86400 * 10**9)
        store.put("ns", "value", "ahead")
    monkeypatch.setattr(record, "_last", 0)
    store.put("ns", "value", "behind")
    assert store.get("ns", "value").read() == "behind"


def test_versions_of_one_process_are_in_order() -> None:
    """Versions made one after the other, by any thread, are all different and sort in that order."""
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: [new_version(None) for _ in range(500)], range(4)))
    assert all(one == sorted(one) for one in made)
    assert len({version[:16] for one in made for version in one}) == 2000


def test_many_threads_may_put_one_name(store: ArtifactStore) -> None:
    """Publishers that compete leave a whole artifact: the newest."""
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: store.put("ns", "value", n).record, range(40)))
    assert store.get("ns", "value").record == max(made, key=lambda one: one.version)


def test_a_store_may_be_sent_to_another_process(tmp_path: Path) -> None:
    """A store that was used travels to another process and works there."""
    store = ArtifactStore(StorageSettings(base_path=str(tmp_path)))
    store.put("ns", "parent", 1)
    script = "import pickle, sys; pickle.load(sys.stdin.buffer).put('ns', 'child', 'from the child')"
    subprocess.run([sys.executable, "-c", script], input=pickle.dumps(store), check=True)
    assert store.get("ns", "child").read() == "from the child"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"protocol": "s3", "base_path": "./.flowtilla/storage"}, "is not a bucket"),
        ({"protocol": "s3", "base_path": "a*b"}, "must not have any of"),
        ({"protocol": "s3", "base_path": "a/b", "bucket_per_namespace": True}, "beginning of a bucket's name"),
        ({"protocol": "file", "bucket_per_namespace": True}, "needs an object store"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, object], said: str) -> None:
    """What can never work is refused when the store is made, with the setting's name."""
    with pytest.raises(ConfigurationError, match=said):
        ArtifactStore(StorageSettings.model_validate(settings))


def test_downloads(store: ArtifactStore, tmp_path: Path) -> None:
    """A download goes into a folder under its own name, or to the path given, and leaves nothing else."""
    artifact = store.put("ns", "value", "x")
    target = tmp_path / "downloads"
    target.mkdir()
    assert artifact.download(target) == target / "value.txt"
    assert artifact.download(target / "new" / "other.txt").read_text() == "x"
    assert artifact.download(str(target / "value.txt")).read_text() == "x"
    assert sorted(path.name for path in target.rglob("*")) == ["new", "other.txt", "value.txt"]
    with pytest.raises(StorageError, match="could not be downloaded"):
        artifact.download(target / "value.txt" / "below")

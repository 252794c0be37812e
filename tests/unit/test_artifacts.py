"""`flowtilla.artifacts`, as authors of stages use it."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flowtilla
from flowtilla import artifacts
from flowtilla.context import Context, entered
from flowtilla.errors import ArtifactNotFound, InvalidName, StorageError
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactRecord, ArtifactStore


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(StorageSettings(base_path=str(tmp_path / "storage")))


def _context(settings: StorageSettings | None, **changes: Any) -> Context:
    known: dict[str, Any] = {"run_id": "run-1", "namespace": "ns", "workflow": "w", "stage": "one"}
    return Context(**known, attempt=1, executor="local", _storage=settings, **changes)


@pytest.fixture
def stage(store: ArtifactStore) -> Iterator[Context]:
    """The code of the test runs as a stage."""
    with entered(_context(store.settings)) as context:
        yield context


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    """The code of the test runs in a folder with a configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWTILLA_CONFIG", raising=False)
    Path("flowtilla.yaml").write_text(
        "storage: {base_path: ./kept}\nservices: {compute: {default_namespace: research}}\n"
    )
    return ArtifactStore(StorageSettings(base_path=str(tmp_path / "kept")))


def test_a_stage_sees_what_it_put_and_nobody_else_does(store: ArtifactStore, stage: Context) -> None:
    """Inside the stage what was put is there under every verb; outside it is not, until the record is published."""
    artifact = artifacts.put("summary", {"a": 1}, metadata={"by": "test"})
    assert artifact.read() == {"a": 1}
    assert artifacts.get("summary").read() == {"a": 1}
    assert artifacts.get("summary", version=artifact.record.version).read() == {"a": 1}
    assert artifacts.exists("summary")
    assert [one.name for one in artifacts.list()] == ["summary"]
    assert not store.exists("ns", "summary")
    assert store.list("ns") == []
    (staged,) = stage._staged
    assert store.publish(ArtifactRecord.model_validate(staged))
    found = store.get("ns", "summary")
    assert (found.record.run_id, found.record.stage, found.metadata) == ("run-1", "one", {"by": "test"})


def test_what_a_stage_puts_hides_what_was_there(store: ArtifactStore, stage: Context) -> None:
    """A stage reads its own version, the last of them; other names and other versions are read from the store."""
    before = store.put("ns", "summary", "before")
    store.put("ns", "other", "other")
    assert artifacts.get("summary").read() == "before"
    artifacts.put("summary", "first")
    artifacts.put("summary", "second")
    assert artifacts.get("summary").read() == "second"
    assert artifacts.get("summary", version=before.record.version).read() == "before"
    assert [(one.name, one.read()) for one in artifacts.list()] == [("other", "other"), ("summary", "second")]
    for one in stage._staged:
        store.publish(ArtifactRecord.model_validate(one))
    assert store.get("ns", "summary").read() == "second"


def test_another_namespace_by_choice(store: ArtifactStore, stage: Context) -> None:
    """A namespace that is named is used instead of the run's, and names in one are not names in the other."""
    artifacts.put("summary", 1, namespace="shared")
    assert stage._staged[0]["namespace"] == "shared"
    assert artifacts.get("summary", namespace="shared").read() == 1
    assert not artifacts.exists("summary")
    with pytest.raises(ArtifactNotFound):
        artifacts.get("summary")
    for bad in ("", "../x"):
        with pytest.raises(InvalidName):
            artifacts.put("summary", 1, namespace=bad)


def test_deleting_in_a_stage(store: ArtifactStore, stage: Context) -> None:
    """Deleting removes what the stage put, which then is not published, and what was there before."""
    store.put("ns", "summary", "before")
    artifacts.put("summary", "mine")
    artifacts.put("other", "mine")
    assert artifacts.delete("summary")
    assert not artifacts.delete("summary")
    assert not artifacts.exists("summary")
    assert [one["name"] for one in stage._staged] == ["other"]
    assert not store.exists("ns", "summary")


def test_a_run_without_storage_is_told(store: ArtifactStore) -> None:
    """A stage whose run has no storage is told which setting is missing."""
    with entered(_context(None)), pytest.raises(StorageError, match="run run-1 has no storage"):
        artifacts.put("summary", 1)


def test_outside_a_stage_the_configuration_counts(configured: ArtifactStore) -> None:
    """Without a stage, the configuration says where, and what is put is there at once."""
    artifacts.put("summary", 1)
    assert configured.get("research", "summary").read() == 1
    assert artifacts.get("summary").read() == 1
    assert [one.namespace for one in artifacts.list()] == ["research"]
    artifacts.put("summary", 2, namespace="ns")
    assert configured.get("ns", "summary").read() == 2
    assert artifacts.delete("summary")
    assert not artifacts.exists("summary")


def test_an_artifact_is_short_to_show(store: ArtifactStore) -> None:
    """A repr fits a line and says what it is."""
    assert repr(store.put("ns", "text", "x" * 2000)) == "<Artifact ns/text text, 2,000 bytes>"


def test_importing_is_light() -> None:
    """Importing artifacts, objects and the store imports no library of values or file systems."""
    script = (
        "import sys, flowtilla.artifacts, flowtilla.objects, flowtilla.storage, flowtilla.storage.checkpoints\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'polars', 'matplotlib', 'PIL', 'fsspec', 's3fs', 'ray', 'dask', 'rq'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_storing_plain_values_stays_light(tmp_path: Path) -> None:
    """Storing and reading JSON imports no library of other values."""
    script = (
        "import sys; from flowtilla.storage import ArtifactStore; from flowtilla.settings import StorageSettings\n"
        "ArtifactStore(StorageSettings(base_path=sys.argv[1])).put('ns', 'a', {'x': 1}).read()\n"
        "print(sorted({'numpy', 'pandas', 'pyarrow', 'matplotlib', 'cloudpickle'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"


def test_it_is_where_the_documentation_says(store: ArtifactStore, caplog: pytest.LogCaptureFixture) -> None:
    """`flowtilla.artifacts` and `flowtilla.objects` are there without an import of their own, and storing is quiet."""
    caplog.set_level(logging.INFO)
    with entered(_context(store.settings)):
        flowtilla.artifacts.put("summary", 1)
        flowtilla.objects.put("key", 1)
    assert caplog.records == []

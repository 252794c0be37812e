"""What runs keep for themselves: results and checkpoints."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flowtilla.errors import StorageError, ValueNotStorable
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactRecord, ArtifactStore
from flowtilla.storage.checkpoints import load_checkpoint, save_checkpoint
from flowtilla.storage.logs import load_log, store_log
from flowtilla.storage.results import load_result, store_result
from flowtilla.storage.staged import Staged


class Point:
    """A class of the user's own."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture
def settings(tmp_path: Path) -> StorageSettings:
    return StorageSettings(base_path=str(tmp_path / "storage"))


@pytest.fixture
def data(settings: StorageSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json")


def test_a_result_comes_back_by_its_reference(settings: StorageSettings, data: dict[str, Any]) -> None:
    """A reference says where, how and how large, and leads to the value; several results of one run stay apart."""
    references = [store_result(data, "ns", "run-1", value) for value in ([1] * 9, "two")]
    assert [load_result(settings, "ns", "run-1", reference) for reference in references] == [[1] * 9, "two"]
    path = Path(references[0]["artifact"])
    assert path.is_relative_to(Path(settings.base_path, "results", "ns", "run-1"))
    assert (references[0]["format"], references[0]["size"]) == ("json", path.stat().st_size)


def test_a_result_that_cannot_be_stored_is_refused(data: dict[str, Any]) -> None:
    """A result is stored as what it is or not at all."""
    with pytest.raises(ValueNotStorable, match="a tuple"):
        store_result(data, "ns", "run-1", (1, 2))


@pytest.mark.parametrize("reference", [{}, {"record": None}, {"record": {"name": "../x"}}, None, "x"])
def test_a_damaged_reference_is_a_clear_error(settings: StorageSettings, reference: Any) -> None:
    """What is no reference leads nowhere."""
    with pytest.raises(StorageError, match="no record"):
        load_result(settings, "ns", "run-1", reference)


@pytest.mark.parametrize("value", [Point(3), (1, {2}), None, {"a": Point(1)}])
def test_checkpoints_take_any_value(data: dict[str, Any], value: object) -> None:
    """A checkpoint comes back equal, whatever its class; nobody finds it by name."""
    record = save_checkpoint(data, "ns", "run-1", "fetch", value)
    assert load_checkpoint(data, "ns", "run-1", record) == value
    assert not ArtifactStore(StorageSettings.model_validate(data), "checkpoints").exists("ns", "run-1")


def test_only_a_runs_own_pickles_are_loaded(settings: StorageSettings, data: dict[str, Any]) -> None:
    """A record of anything but a checkpoint is refused, and one that leads elsewhere finds nothing."""
    record = save_checkpoint(data, "ns", "run-1", "fetch", 1)
    changes: list[dict[str, Any]] = [{"format": "json"}, {"name": "run-2"}, {"run_id": None}, {"namespace": "../x"}]
    for change in [*changes, {"files": {"index.json": 9}}]:
        with pytest.raises(StorageError, match=r"no checkpoint|no record|not run run-1"):
            load_checkpoint(data, "ns", "run-1", record | change)
    artifact = ArtifactStore(settings).put("ns", "run-1", 1, format="pickle", run_id="run-1")
    with pytest.raises(StorageError, match="missing"):
        load_checkpoint(data, "ns", "run-1", artifact.record.model_dump(mode="json"))


def test_what_another_run_keeps_is_not_read(settings: StorageSettings, data: dict[str, Any]) -> None:
    """A checkpoint, a result and a log are those of one run of one namespace; no record of another's leads to them."""
    saved = save_checkpoint(data, "ns", "run-1", "fetch", 1)
    result = store_result(data, "ns", "run-1", 1)
    log = store_log(settings, "ns", "run-1", "a line")
    assert load_log(settings, "ns", "run-1", log) == "a line"
    for whose in (("ns", "run-2"), ("other", "run-1")):
        for read in (
            lambda whose=whose: load_checkpoint(data, *whose, saved),
            lambda whose=whose: load_result(settings, *whose, result),
            lambda whose=whose: load_log(settings, *whose, log),
        ):
            with pytest.raises(StorageError, match="somebody else changed what Redis keeps"):
                read()


def test_a_value_that_does_not_pickle_is_refused(data: dict[str, Any]) -> None:
    """What cannot be saved fails loudly and leaves nothing."""
    with pytest.raises(ValueNotStorable):
        save_checkpoint(data, "ns", "run-1", "fetch", (n for n in ()))
    assert [path for path in Path(data["base_path"]).rglob("*") if path.is_file()] == []


def test_a_purged_run_leaves_nothing_of_its_own(settings: StorageSettings, data: dict[str, Any]) -> None:
    """Purging a run removes all it kept for itself, and nothing of other runs or of the namespace."""
    store_result(data, "ns", "run-1", 1)
    save_checkpoint(data, "ns", "run-1", "fetch", 1)
    other = store_result(data, "ns", "run-2", 2)
    ArtifactStore(settings).put("ns", "summary", 3)
    for area in ("results", "checkpoints", "logs"):
        ArtifactStore(settings, area).purge("ns", "run-1")
    assert not list(Path(settings.base_path).rglob("*run-1*"))
    assert load_result(settings, "ns", "run-2", other) == 2
    assert ArtifactStore(settings).get("ns", "summary").read() == 3


def test_what_a_run_staged_and_never_published_goes_with_it(settings: StorageSettings) -> None:
    """Whole or half written, in whatever namespace; what was published stays, and so does what others staged."""
    store, own, other = ArtifactStore(settings), Staged(settings, "ns", "run-1"), Staged(settings, "ns", "run-2")

    def stage(name: str, value: str, by: Staged, namespace: str = "ns") -> ArtifactRecord:
        return store.stage(namespace, name, value, note=partial(by.note, namespace, name))

    shown, hidden = stage("a", "shown", own), stage("a", "hidden", own)
    stage("b", "elsewhere", own, "other")
    theirs = stage("a", "theirs", other)
    store.publish(shown)
    half = Path(settings.base_path, "artifacts", "ns", "c", "1700000000000000-0123abcd")
    own.note("ns", "c", half.name)
    half.mkdir(parents=True)
    (half / "c.txt").write_text("hal")

    own.purge()

    assert store.get("ns", "a").read() == "shown"
    assert store.artifact(theirs).read() == "theirs"
    with pytest.raises(StorageError):
        store.artifact(hidden).read()
    assert sorted(path.name for path in Path(settings.base_path).glob("*/*")) == ["ns", "ns"]
    assert not half.parent.exists()
    other.purge()
    own.purge()
    assert [path.name for path in Path(settings.base_path, "artifacts", "ns", "a").iterdir() if path.is_dir()] == [
        shown.version
    ]


@pytest.mark.parametrize("note", ["a.current", "ns.a.current", "ns.a.", "...", "ns.a.1700000000000000-0123abcd.x"])
def test_a_strange_note_removes_nothing(settings: StorageSettings, note: str) -> None:
    """Only what is named like a version is one."""
    store = ArtifactStore(settings)
    kept = store.put("ns", "a", "kept")
    own = Staged(settings, "ns", "run-1")
    own.note("ns", "a", kept.record.version)
    Path(settings.base_path, "staged", "ns", "run-1", note).touch()
    own.purge()
    assert store.get("ns", "a").read() == "kept"
    assert not Path(settings.base_path, "staged", "ns").exists()

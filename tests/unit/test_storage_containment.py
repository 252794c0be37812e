"""Nobody leaves a namespace: not by a name, not by a link, not by an edited record."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowtilla.errors import FlowtillaError, InvalidName, StorageError
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactRecord, ArtifactStore
from flowtilla.storage.record import check_relative

BAD_NAMES = [
    "../x",
    "a/b",
    "..%2f",
    "a\\b",
    "",
    "x" * 5000,
    "a\0b",
    "n\u0430me",  # a Cyrillic a
    "\uff4eame",  # a fullwidth n
    "name\n",
    "..",
    ".",
    "/etc",
    "~",
    "C:",
    "a b",
]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(StorageSettings(base_path=str(tmp_path / "root" / "storage")))


def _uses(store: ArtifactStore, namespace: str, name: str) -> list[Callable[[], object]]:
    return [
        lambda: store.put(namespace, name, "x"),
        lambda: store.stage(namespace, name, "x"),
        lambda: store.get(namespace, name),
        lambda: store.exists(namespace, name),
        lambda: store.delete(namespace, name),
        lambda: store.purge(namespace, name),
    ]


@pytest.mark.parametrize("bad", BAD_NAMES)
def test_bad_names_are_refused_everywhere(store: ArtifactStore, tmp_path: Path, bad: str) -> None:
    """Each verb refuses a bad namespace and a bad name, and touches no file."""
    for use in [*_uses(store, bad, "name"), *_uses(store, "ns", bad), lambda: store.list(bad)]:
        with pytest.raises(InvalidName, match="is not allowed: use 1 to 128"):
            use()
    assert list(tmp_path.iterdir()) == []


@given(st.text() | st.text(alphabet="ab./\\%2f~\0\n", max_size=12), st.text(max_size=6))
@example("../../x", "y")
def test_no_text_leads_outside(namespace: str, name: str) -> None:
    """Whatever the names are, they are refused, or the value is stored below the root and nowhere else."""
    with tempfile.TemporaryDirectory() as parent:
        store = ArtifactStore(StorageSettings(base_path=f"{parent}/root"))
        try:
            path = store.put(namespace, name, "x").path
        except InvalidName:
            assert not any(Path(parent).iterdir())
        else:
            assert [path.name for path in Path(parent).iterdir()] == ["root"]
            assert Path(path).resolve().is_relative_to(Path(parent, "root", "artifacts", namespace, name).resolve())


def test_a_link_out_of_the_namespace_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    """A symbolic link in place of a namespace or an artifact is not followed, not even to another namespace."""
    secret = store.put("secret", "plan", "the plan")
    area = Path(store.settings.base_path, "artifacts")
    (area / "linked").symlink_to(area / "secret", target_is_directory=True)
    (area / "ns").mkdir()
    (area / "ns" / "plan").symlink_to(area / "secret" / "plan", target_is_directory=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (area / "escape").symlink_to(outside, target_is_directory=True)
    for namespace in ("linked", "ns", "escape"):
        for use in _uses(store, namespace, "plan"):
            with pytest.raises(StorageError, match="symbolic link"):
                use()
    with pytest.raises(StorageError, match="symbolic link"):
        store.list("linked")
    assert list(outside.iterdir()) == []
    assert secret.read() == "the plan"


def test_a_linked_file_is_not_read(store: ArtifactStore, tmp_path: Path) -> None:
    """A data file that was replaced by a link is refused however it is read."""
    (tmp_path / "private").write_text("x")
    artifact = store.put("ns", "value", "x")
    Path(artifact.path).unlink()
    Path(artifact.path).symlink_to(tmp_path / "private")
    for read in (artifact.read, artifact.open, lambda: artifact.download(tmp_path / "copy")):
        with pytest.raises(StorageError, match="symbolic link"):
            read()
    assert not (tmp_path / "copy").exists()


def test_the_base_itself_may_be_a_link(tmp_path: Path) -> None:
    """The operator may keep the whole store behind a link."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "storage").symlink_to(tmp_path / "disk", target_is_directory=True)
    store = ArtifactStore(StorageSettings(base_path=str(tmp_path / "storage")))
    assert store.put("ns", "value", 1).read() == 1
    assert (tmp_path / "disk" / "artifacts").is_dir()


EVIL_PATHS = ["../up", "a/../../b", "/etc/passwd", "a\\b", "a\0b", "C:x", "a%2e%2e", "a//b", "./a", "", "a\nb", "a/"]


@pytest.mark.parametrize("evil", [*EVIL_PATHS, "k?versionId=1"])
def test_treacherous_relative_paths_are_refused(evil: str) -> None:
    """A path inside a folder artifact that could mean another place is no path at all."""
    with pytest.raises(ValueError, match="plain relative path"):
        check_relative(evil)


def _edited(store: ArtifactStore, **changes: Any) -> None:
    pointer = Path(store.settings.base_path, "artifacts", "ns", "site", "current.json")
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [
        *({"files": {evil: 1}} for evil in EVIL_PATHS),
        {"version": "../../../secret/plan"},
        {"version": "current"},
        {"namespace": "secret"},
        {"namespace": ".."},
        {"name": "plan"},
        {"sha256": "x"},
        {"size": -1},
        {"extra": 1},
        {"files": None},
        {"format": "text", "files": {}},
        {"format": "pickle", "files": {"site.bin": 1}},
    ],
)
def test_an_edited_record_is_refused(store: ArtifactStore, tmp_path: Path, changes: dict[str, Any]) -> None:
    """A record that somebody edited leads nowhere: each reading verb says that it is damaged; deleting still works."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "page").write_text("x")
    store.put("secret", "plan", "the plan")
    store.put("ns", "site", tmp_path / "site")
    _edited(store, **changes)
    for use in (lambda: store.get("ns", "site"), lambda: store.exists("ns", "site"), lambda: store.list("ns")):
        with pytest.raises(StorageError, match=r"damaged .* delete the artifact"):
            use()
    assert store.delete("ns", "site")
    assert not store.exists("ns", "site")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"9" * 100])
def test_a_record_that_is_no_json_is_refused(store: ArtifactStore, content: bytes) -> None:
    """Bytes that are no record end in the same clear error."""
    store.put("ns", "value", 1)
    Path(store.settings.base_path, "artifacts", "ns", "value", "current.json").write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        store.get("ns", "value")


def test_content_that_is_not_what_was_written_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    """A changed file, a missing one, and a folder with two files exchanged are noticed at each way of reading."""
    (tmp_path / "site").mkdir()
    for name in "ab":
        (tmp_path / "site" / name).write_text(name)
    changed, gone, folder = (store.put("ns", name, "x") for name in ("changed", "gone", "folder"))
    folder = store.put("ns", "folder", tmp_path / "site")
    Path(changed.path).write_text("y")
    Path(gone.path).unlink()
    Path(folder.path, "a").write_text("b")
    Path(folder.path, "b").write_text("a")
    for artifact, said in ((changed, "damaged"), (gone, "missing|No such file"), (folder, "damaged")):
        with pytest.raises(StorageError, match=said):
            artifact.read()
        with pytest.raises(StorageError, match=said):
            artifact.download(tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "site"]


@given(st.dictionaries(st.text(max_size=10), st.integers() | st.text() | st.none(), max_size=6))
def test_any_data_is_a_record_or_an_error(data: dict[str, Any]) -> None:
    """A record that came as data is checked as a whole."""
    with pytest.raises(ValueError):
        ArtifactRecord.model_validate(data)


def test_errors_are_of_one_tree(store: ArtifactStore) -> None:
    """Whoever catches the root catches what storage raises."""
    for use in (lambda: store.put("../x", "a", 1), lambda: store.get("a", "b"), lambda: store.put("a", "b", object())):
        with pytest.raises(FlowtillaError):
            use()

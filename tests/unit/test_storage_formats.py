"""Typed content: what is put comes back as what it was, or is refused."""

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from flowtilla.errors import StorageError, ValueNotStorable
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactStore, strict_json


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(StorageSettings(base_path=str(tmp_path / "storage")))


@pytest.mark.parametrize(
    ("value", "format", "suffix"),
    [
        ("naïve\r\nlines\n", "text", ".txt"),
        ("", "text", ".txt"),
        (b"\x00\xff", "bytes", ".bin"),
        (b"", "bytes", ".bin"),
        ({"a": [1, 2.5, None, True, "é"], "": {}}, "json", ".json"),
        ([], "json", ".json"),
        (None, "json", ".json"),
        (7, "json", ".json"),
        (True, "json", ".json"),
        (0.1, "json", ".json"),
    ],
)
def test_plain_values_come_back(store: ArtifactStore, value: Any, format: str, suffix: str) -> None:
    """Text, bytes and JSON come back equal, of the same class, in a file with the usual suffix."""
    artifact = store.put("ns", "value", value)
    found = store.get("ns", "value").read()
    assert (found, type(found)) == (value, type(value))
    assert artifact.format == format
    assert Path(artifact.path).suffix == suffix
    assert Path(artifact.path).stat().st_size == artifact.size


def test_pandas_frame_comes_back(store: ArtifactStore) -> None:
    """A pandas DataFrame keeps its index and the types of its columns."""
    frame = pandas.DataFrame(
        {"n": [1, 2], "when": pandas.to_datetime(["2015-01-01", "2015-02-01"]), "text": ["a", None]},
        index=pandas.Index(["x", "y"], name="key"),
    )
    pandas.testing.assert_frame_equal(store.put("ns", "frame", frame).read(), frame)


def test_arrow_table_comes_back(store: ArtifactStore) -> None:
    """A pyarrow Table comes back as a Table, not as pandas."""
    table = pyarrow.table({"n": [1, 2]})
    found = store.put("ns", "table", table).read()
    assert isinstance(found, pyarrow.Table)
    assert found.equals(table)


@pytest.mark.parametrize("index", [None, pandas.Index([5, 6], name="key")])
def test_csv_keeps_an_index_that_says_something(store: ArtifactStore, index: Any) -> None:
    """A frame put as CSV is CSV for everybody, and loses only an index that merely counts rows."""
    artifact = store.put("ns", "frame", pandas.DataFrame({"n": [1, 2]}, index=index), format="csv")
    assert Path(artifact.path).read_text() == ("n\n1\n2\n" if index is None else "key,n\n5,1\n6,2\n")
    assert list(artifact.read()["n"]) == [1, 2]


def test_csv_takes_text_and_tables(store: ArtifactStore) -> None:
    """Text that already is CSV is kept as it is; a Table comes back as a Table."""
    assert store.put("ns", "text", "a,b\n1,2\n", format="csv").read() == "a,b\n1,2\n"
    assert store.put("ns", "table", pyarrow.table({"a": [1]}), format="csv").read().to_pydict() == {"a": [1]}


@pytest.mark.parametrize("array", [numpy.eye(3), numpy.array(["a", "bc"]), numpy.zeros((0, 2), dtype="int8")])
def test_arrays_come_back(store: ArtifactStore, array: Any) -> None:
    """A numpy array keeps its shape and type."""
    found = store.put("ns", "array", array).read()
    numpy.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


def _matplotlib_figure() -> Figure:
    figure = Figure()
    figure.subplots().plot([1, 2])
    return figure


@pytest.mark.parametrize("make", [_matplotlib_figure, lambda: Image.new("RGB", (4, 4))])
def test_figures_become_png(store: ArtifactStore, make: Callable[[], Any]) -> None:
    """A figure is stored as a picture, and read as its bytes."""
    data = store.put("ns", "chart", make()).read()
    assert Image.open(io.BytesIO(data)).format == "PNG"


@pytest.mark.parametrize(
    ("file", "suffix"), [("a.csv", ".csv"), ("a.tar.gz", ".tar.gz"), ("a.v1.2.gz", ".gz"), ("a", ""), ("a.%2e", "")]
)
def test_files_keep_their_suffix(store: ArtifactStore, tmp_path: Path, file: str, suffix: str) -> None:
    """A file is copied as it is, under the artifact's name and its own suffix."""
    (tmp_path / file).write_bytes(b"content")
    artifact = store.put("ns", "copy", tmp_path / file)
    assert Path(artifact.path).name == f"copy{suffix}"
    assert artifact.read() == b"content"


@pytest.mark.skipif(sys.platform == "darwin", reason="asks Linux how much memory a process had at most")
def test_a_large_file_is_not_held_in_memory(store: ArtifactStore, tmp_path: Path) -> None:
    """Storing and downloading a file takes far less memory than the file is large."""
    with (tmp_path / "large").open("wb") as large:
        large.truncate(200_000_000)
    script = (
        "import sys; from pathlib import Path; from flowtilla.storage import ArtifactStore\n"
        "from flowtilla.settings import StorageSettings\n"
        "store = ArtifactStore(StorageSettings(base_path=sys.argv[1]))\n"
        "store.put('ns', 'small', b'x').download(sys.argv[2] + '.small')\n"
        # Not `getrusage`, which begins with what the process had that started this one.
        "def peak(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) * 1024\n"
        "before = peak()\n"
        "store.put('ns', 'large', Path(sys.argv[2])).download(sys.argv[2] + '.copy')\n"
        "print(peak() - before)\n"
    )
    command = [sys.executable, "-c", script, store.settings.base_path, str(tmp_path / "large")]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 40_000_000
    assert (tmp_path / "large.copy").stat().st_size == 200_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "site" / "index.html").write_text("<p>")
    (tmp_path / "site" / "deep" / "er" / "día [1].txt").write_text("x")
    return tmp_path / "site"


def test_folders_come_back(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    """A folder comes back whole, as bytes by path or as a copy."""
    artifact = store.put("ns", "site", folder)
    assert artifact.read() == {"index.html": b"<p>", "deep/er/día [1].txt": b"x"}
    assert artifact.size == 4
    copy = artifact.download(tmp_path / "copy")
    assert sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*.*")) == [
        "deep/er/día [1].txt",
        "index.html",
    ]


def test_an_empty_folder_is_a_folder(store: ArtifactStore, tmp_path: Path) -> None:
    """A folder without files is stored and downloaded as one."""
    (tmp_path / "empty").mkdir()
    artifact = store.put("ns", "empty", tmp_path / "empty")
    assert artifact.read() == {}
    assert artifact.download(tmp_path / "copy").is_dir()


@pytest.mark.parametrize("evil", ["link", "folder-link", "fifo", "back\\slash", "C:drive", "a%2fb", "new\nline"])
def test_folders_with_anything_strange_are_refused(store: ArtifactStore, folder: Path, evil: str) -> None:
    """A folder with a link, a pipe or a name that means something else elsewhere is refused, and nothing is kept."""
    target = folder / "deep" / evil
    if evil == "link":
        target.symlink_to("/etc/passwd")
    elif evil == "folder-link":
        target.symlink_to(folder, target_is_directory=True)
    elif evil == "fifo":
        subprocess.run(["mkfifo", str(target)], check=True)
    else:
        target.write_text("x")
    with pytest.raises(ValueNotStorable, match="deep"):
        store.put("ns", "site", folder)
    assert not store.exists("ns", "site")
    assert not Path(store.settings.base_path).exists()


class _Unknown:
    """A class no format holds."""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((1, 2), r"a tuple .* store list\(value\), or pass format=\"json\""),
        ({"a": [(1,)]}, r"value\['a'\]\[0\] is a tuple"),
        ({1: 2}, "has the key 1"),
        ({"a": float("nan")}, r"value\['a'\] is nan"),
        (float("inf"), "is inf"),
        ([numpy.int64(1)], r"value\[0\] is a numpy.int64"),
        ({1, 2}, "a set cannot be stored"),
        (bytearray(b"x"), "a bytearray"),
        ("\ud800", "surrogates"),
        (_Unknown(), r"test_storage_formats\._Unknown cannot be stored .* format=\"pickle\""),
        (numpy.array([object()]), "Python objects"),
        (numpy.ma.array([1], mask=[True]), "MaskedArray"),
        (pandas.DataFrame({"a": [object()]}), "pandas.DataFrame cannot be stored as dataframe"),
        (Path("/nowhere/at/all"), "/nowhere/at/all is not a file"),
    ],
)
def test_what_would_not_come_back_is_refused(store: ArtifactStore, value: Any, said: str) -> None:
    """A value that no format gives back is refused with its class or place, and nothing is kept."""
    with pytest.raises(ValueNotStorable, match=said):
        store.put("ns", "value", value)
    assert store.namespaces() == []


def test_a_value_that_holds_itself_is_refused(store: ArtifactStore) -> None:
    """A circular value ends in an error, not in a hang."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueNotStorable):
        store.put("ns", "circle", circle)


@pytest.mark.parametrize(
    ("value", "format"),
    [
        (1, "text"),
        ("x", "bytes"),
        ([1], "array"),
        ({}, "dataframe"),
        ("x", "figure"),
        (1, "folder"),
        (object(), "json"),
        ({"a": float("nan")}, "json"),
        (lambda: (yield), "nonsense"),
    ],
)
def test_a_format_that_does_not_fit_is_refused(store: ArtifactStore, value: Any, format: str) -> None:
    """Asking for a format that cannot hold the value is an error that names the format."""
    with pytest.raises(ValueNotStorable, match=format):
        store.put("ns", "value", value, format=format)


def test_an_explicit_format_may_convert(store: ArtifactStore) -> None:
    """Who asks for a format gets what it makes of the value."""
    assert store.put("ns", "tuple", (1, (2,)), format="json").read() == [1, [2]]
    assert store.put("ns", "array", bytearray(b"x"), format="bytes").read() == b"x"


def test_a_pickle_needs_a_word_on_both_ends(store: ArtifactStore) -> None:
    """A pickle is written only by format="pickle" and read only with allow_pickle=True."""
    store.put("ns", "set", {1, 2}, format="pickle")
    with pytest.raises(StorageError, match="allow_pickle=True"):
        store.get("ns", "set").read()
    assert store.get("ns", "set").read(allow_pickle=True) == {1, 2}
    with pytest.raises(ValueNotStorable, match="pickle"):
        store.put("ns", "set", (n for n in ()), format="pickle")


def test_content_of_another_kind_is_a_clear_error(store: ArtifactStore) -> None:
    """A format that this version does not know is an error that says so."""
    record = store.put("ns", "value", "x").record
    with pytest.raises(StorageError, match="'zarr' is not known"):
        store.artifact(record.model_copy(update={"format": "zarr"})).read()


def test_a_stream_gives_the_bytes(store: ArtifactStore, tmp_path: Path) -> None:
    """An open artifact is a binary stream that other libraries read."""
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(__file__, "me.py")
    with store.put("ns", "archive", tmp_path / "a.tar").open() as stream, tarfile.open(fileobj=stream) as archive:
        assert archive.getnames() == ["me.py"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_json)
def test_any_json_comes_back_or_is_refused(value: Any) -> None:
    """JSON gives back exactly what it was given; only text that is no Unicode is refused."""
    try:
        data = strict_json.dump(value)
    except ValueNotStorable:
        assert "\\ud" in repr(value)
    else:
        assert repr(strict_json.load(data)) == repr(value)

"""Snapshots, and what is told of a value."""

import threading
from collections import OrderedDict, deque
from pathlib import Path

import numpy
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtilla_executors import MISSING
from flowtilla_executors.describe import inline, iterable, length
from flowtilla_executors.local.files import Mapped, discard, owned, store, write
from flowtilla_executors.values import Copied, Listed, Same, fresh, lent, snapshot


@pytest.mark.parametrize("value", [None, True, 1, 1.5, 1j, "text", b"bytes"])
def test_what_cannot_change_is_not_copied(value):
    """The value itself will do."""
    assert snapshot(value).load() is value
    assert fresh(value) is value


@pytest.mark.parametrize("value", [[1, [2]], {"a": {1}}, (1, []), range(3), deque([1])])
def test_what_can_change_is_copied(value):
    """Equal, and another object each time."""
    kept = snapshot(value)

    assert kept.load() == value
    assert kept.load() is not value
    assert kept.load() is not kept.load()
    assert fresh(value) == value


def test_a_snapshot_is_of_its_moment():
    """Later changes do not reach it, of arrays neither."""
    values, array = [1], numpy.arange(3)
    kept, kept_array = snapshot(values), snapshot(array)
    values.append(2)
    array[0] = 7

    assert kept.load() == [1]
    assert kept_array.load().tolist() == [0, 1, 2]


def test_arrays_come_back_writable():
    """What one load writes the next does not see."""
    kept = snapshot(numpy.zeros(3))
    first = kept.load()
    first += 1

    assert kept.load().tolist() == [0, 0, 0]


@pytest.mark.parametrize("keep", [snapshot, lent, store])
def test_readonly_loads_share_their_arrays(keep, tmp_path):
    """None is copied, none can be written to, and what is no array is a fresh copy still."""
    value = {"array": numpy.arange(20_000), "rows": [1]}
    kept = keep(value, "v", [tmp_path]) if keep is store else keep(value)
    first, second = kept.load(readonly=True), kept.load(readonly=True)
    first["rows"].append(2)

    with pytest.raises(ValueError, match="read-only"):
        first["array"][0] = 1
    assert second["rows"] == [1]
    assert (second["array"] == value["array"]).all()
    if isinstance(kept, Copied):
        assert numpy.shares_memory(first["array"], second["array"])


def test_a_fresh_copy_may_share_arrays_that_cannot_be_written_to():
    """As a mapped stage gets its items when its arguments are read-only."""
    value = [numpy.arange(3), {"x": 1}]
    shared = fresh(value, readonly=True)

    assert numpy.shares_memory(shared[0], value[0]) and not shared[0].flags.writeable
    assert shared[1] == value[1] and shared[1] is not value[1]
    assert fresh(value)[0].flags.writeable


def test_classes_no_import_finds_stay_the_same_class():
    """In one process, a local class is recognised."""

    class Local:
        pass

    assert type(snapshot(Local()).load()) is Local
    assert snapshot(lambda x: x + 1).load()(1) == 2


def test_what_cannot_be_pickled_raises():
    """Not later, when somebody loads it."""
    with pytest.raises(TypeError, match="lock"):
        snapshot([threading.Lock()])


def test_small_values_are_no_files(tmp_path):
    """They are kept in memory."""
    assert isinstance(store("x", "v", [tmp_path]), Same)
    assert isinstance(store([1], "v", [tmp_path]), Copied)
    assert list(tmp_path.iterdir()) == []


def test_big_values_are_files(tmp_path):
    """Many buffers of odd lengths, and a big pickle, come back each in its place."""
    value = [numpy.arange(n, dtype="u1") for n in (1, 70_000, 0, 63, 64, 65)] + ["x" * 100_000]
    kept = store(value, "v", [tmp_path])

    assert isinstance(kept, Mapped)
    assert [path.name for path in tmp_path.iterdir()] == ["v0"]
    loaded, again = kept.load(), kept.load()
    loaded[1][0] = 99
    assert [each.tolist() for each in again[:-1]] == [each.tolist() for each in value[:-1]]
    assert again[-1] == value[-1]
    assert kept.size > 170_000


def test_a_table_goes_through_a_file(tmp_path):
    """As pandas made it."""
    table = pandas.DataFrame({"a": range(50_000), "b": ["x", "y"] * 25_000})
    kept = store(table, "v", [tmp_path])

    assert isinstance(kept, Mapped)
    pandas.testing.assert_frame_equal(kept.load(), table)


def test_a_full_folder_gives_way_to_the_next(tmp_path):
    """Shared memory is often small in a container; the disk is not."""
    (tmp_path / "disk").mkdir()

    path = write([b"value"], "v", [Full(tmp_path), tmp_path / "disk"])

    assert path.read_bytes() == b"value"
    assert path.parent.name == "disk"


def test_no_room_anywhere_is_an_error(tmp_path):
    """And nothing is left."""
    with pytest.raises(OSError, match="No space left"):
        write([b"value"], "v", [Full(tmp_path)])


class Full:
    """A folder whose files are all `/dev/full`."""

    def __init__(self, path):
        self._path = path

    def __truediv__(self, name):
        path = self._path / name
        if not path.is_symlink():
            path.symlink_to("/dev/full")
        return path


def test_discarding_takes_the_file_and_its_beginnings(tmp_path):
    """And no other call's."""
    for name in ("value-1-", "value-1--77", "value-10-"):
        (tmp_path / name).touch()

    discard("value-1-", [tmp_path, tmp_path / "nowhere"])

    assert [path.name for path in tmp_path.iterdir()] == ["value-10-"]


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1.5, "", "é", [], {}, [1, [2.5, None]], {"a": {"b": [True]}}, 10**100, -0.0],
)
def test_exact_json_is_taken_inline(value):
    """Equal and of the same classes, and a copy."""
    found = inline(value, 1000)

    assert found == value
    assert repr(found) == repr(value)
    assert found is not value or not isinstance(value, (list, dict))


class Text(str):
    """A string that is more than that."""

    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        (1,),
        {1: 2},
        {"a": (1,)},
        {"a": 1, None: 2},
        {1},
        b"x",
        float("nan"),
        [float("inf")],
        OrderedDict(a=1),
        Text("x"),
        {Text("x"): 1},
        numpy.float64(1.0),
        numpy.int64(1),
        "\ud800",
        [10**10_000],
        object(),
    ],
)
def test_what_json_changes_is_not_taken_inline(value):
    """Reading it back would give something else."""
    assert inline(value, 100_000) is MISSING


def test_the_limit_is_in_bytes_of_json():
    """To the byte, in UTF-8."""
    assert inline("x" * 8, 10) == "x" * 8
    assert inline("x" * 9, 10) is MISSING
    assert inline("é" * 5, 10) is MISSING
    assert inline([1, 2, 3], 7) == [1, 2, 3]
    assert inline([1, 2, 3], 6) is MISSING
    assert inline({"a": 1}, 7) == {"a": 1}
    assert inline({"a": 1}, 6) is MISSING


def test_a_big_or_endless_value_is_given_up_early():
    """No time goes into what cannot fit."""

    class Endless(list):
        def __iter__(self):
            raise AssertionError("it was looked into")

    endless = []
    endless.append(endless)
    deep = []
    for _ in range(100_000):
        deep = [deep]

    assert inline([0] * 10_000_000, 1000) is MISSING
    assert inline(Endless(), 1000) is MISSING
    assert inline(endless, 100_000) is MISSING
    assert inline(deep, 10_000_000) is MISSING


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2], 2),
        ((1,), 1),
        (range(5), 5),
        ("abc", 3),
        (numpy.zeros((4, 2)), 4),
        (numpy.array(1), None),
        (numpy.float64(1), None),
        (pandas.Series([1, 2, 3]), 3),
        (pandas.DataFrame({"a": [1, 2, 3]}), None),
        ({1, 2}, None),
        ({"a": 1}, None),
        (7, None),
        (None, None),
    ],
)
def test_the_length_of_ordered_sequences(value, expected):
    """Items that a window can cut; a table iterates over columns, so its rows do not count."""
    assert length(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [([], True), ("abc", True), ({}, True), ({1}, True), (numpy.zeros(2), True), (numpy.array(1), False), (7, False)],
)
def test_what_can_be_mapped_over(value, expected):
    """Whatever `iter` takes."""
    assert iterable(value) is expected


@given(
    sizes=st.lists(st.integers(0, 3_000_000), min_size=2, max_size=12),
    start=st.integers(0, 12),
    count=st.none() | st.integers(0, 12),
)
@settings(max_examples=30)
def test_a_window_of_a_long_list_is_that_of_the_list(sizes: list[int], start: int, count: int | None) -> None:
    """However it is cut into pieces, and wherever the window is."""
    values = [bytearray(size) for size in sizes]
    kept = snapshot(values)
    stop = None if count is None else start + count

    assert kept.load() == values
    if isinstance(kept, Listed):
        assert len(kept.pieces) > 1
        assert list(kept.window(start, stop)) == values[start:stop]
    else:
        assert sum(sizes) < 3_000_000 + 1024 * 1024


def test_a_list_that_shares_is_kept_whole() -> None:
    """In pieces it would be as often as large as it has items."""
    shared = numpy.zeros(500_000)

    assert isinstance(snapshot([(shared, number) for number in range(50)]), Copied)
    assert isinstance(snapshot([(shared.copy(), number) for number in range(50)]), Listed)


def test_the_files_of_a_long_list_go_with_it(tmp_path: Path) -> None:
    """A piece each, until the last reference is gone."""
    kept = owned(store([bytes(1_000_000 + number) for number in range(4)], "v", [tmp_path]))
    assert isinstance(kept, Listed)
    assert [len(item) for item in kept.window(1, 3)] == [1_000_001, 1_000_002]
    assert len(list(tmp_path.iterdir())) == len(kept.pieces)

    del kept
    assert list(tmp_path.iterdir()) == []

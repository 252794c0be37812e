"""Stages that run once per item."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flowtilla import Run
from flowtilla.errors import RunFailed
from semantics import add, echo, mapped, numbers, one, square, stage, total


def generates(n: int) -> Iterator[int]:
    yield from range(n)


def a_set(n: int) -> set[str]:
    return {f"city {i}" for i in range(n)}


def a_dict() -> dict[str, int]:
    return {"a": 1, "b": 2}


@pytest.mark.parametrize("n", [0, 1, 7, 300])
def test_a_map_keeps_order(run: Callable[..., Run], n: int) -> None:
    """Results stand in the order of the items; an empty list gives an empty list."""
    assert run([stage("n", numbers), mapped("m", square, "n")], {"n": n}).result() == [i * i for i in range(n)]


def test_a_map_of_nothing_gives_its_child_an_empty_list(run: Callable[..., Run]) -> None:
    """Empty gives `[]` also to what depends on it."""
    assert run([stage("n", numbers), mapped("m", square, "n"), stage("t", total, "m")], {"n": 0}).result() == 0


def test_a_generator_is_mapped_over(run: Callable[..., Run]) -> None:
    """Any iterable will do, one that can be read once included."""
    assert run([stage("g", generates), mapped("m", square, "g")], {"n": 4}).result() == [0, 1, 4, 9]


def test_sets_dicts_and_strings_are_mapped_over(run: Callable[..., Run]) -> None:
    """Each item of an unordered iterable comes exactly once."""
    assert sorted(run([stage("s", a_set), mapped("m", echo, "s")], {"n": 100}).result()) == sorted(a_set(100))
    assert run([stage("d", a_dict), mapped("m", echo, "d")]).result() == ["a", "b"]
    assert run([stage("d", echo), mapped("m", echo, "d")], {"x": "xyz"}).result() == ["x", "y", "z"]


def test_other_parents_are_broadcast(run: Callable[..., Run]) -> None:
    """The first parent is mapped over; each item gets the others whole."""
    stages = [stage("n", numbers), stage("one", one), mapped("m", add, "n", "one")]
    assert run(stages, {"n": 3}).result() == [1, 2, 3]


def pair_up(item: int, all_items: list[int]) -> list[int]:
    return [item, len(all_items)]


def test_the_mapped_parent_can_be_broadcast_too(run: Callable[..., Run]) -> None:
    """Naming a parent twice passes it twice: once as items, once whole."""
    stages = [stage("n", numbers), mapped("s", square, "n"), mapped("m", pair_up, "s", "s")]
    assert run(stages, {"n": 3}).result() == [[0, 3], [1, 3], [4, 3]]


def test_what_cannot_be_iterated_is_refused(run: Callable[..., Run]) -> None:
    """Mapping over an int is an error that names stage, parent and class."""
    with pytest.raises(RunFailed, match=r"stage 'm' maps over the value of stage 'a', which is of class int") as raised:
        run([stage("a", one), mapped("m", square, "a")]).result()
    assert (raised.value.stage, raised.value.error) == ("m", "TypeError")


def scaled(factor: int, city: int) -> int:
    return factor * city


def scaled_by_first(item: int, factor: int = 1) -> int:
    return item * factor


def test_map_on_maps_over_a_key_of_the_input(run: Callable[..., Run]) -> None:
    """The item goes to the parameter of that name; the rest of the input fills the others."""
    given = {"city": [1, 2, 3], "factor": 10}
    assert run([mapped("m", scaled, map_on="city")], given).result() == [10, 20, 30]


def test_map_on_without_such_a_parameter_takes_the_first(run: Callable[..., Run]) -> None:
    """The item goes to the first parameter when none has the key's name."""
    assert run([mapped("m", scaled_by_first, map_on="xs")], {"xs": [1, 2], "factor": 3}).result() == [3, 6]


def test_map_on_with_parents_broadcasts_them(run: Callable[..., Run]) -> None:
    """A child may map over the input too; its parents fill the other parameters in order."""
    stages = [stage("ten", echo), mapped("m", scaled, "ten", map_on="city")]
    assert run(stages, {"x": 10, "city": [1, 2]}).result() == [10, 20]


def test_map_on_of_what_is_not_there_fails_before_anything_runs(run: Callable[..., Run]) -> None:
    """The key must be in the input."""
    with pytest.raises(RunFailed, match=r"maps over input\['city'\], which the input does not have"):
        run([mapped("m", scaled, map_on="city")], {}).result()


def test_a_chain_of_maps_gives_the_right_answer(run: Callable[..., Run]) -> None:
    """Three mapped stages in a row."""
    stages = [stage("n", numbers), mapped("a", square, "n"), mapped("b", square, "a"), mapped("c", square, "b")]
    assert run([*stages, stage("t", total, "c")], {"n": 40}).result() == sum(i**8 for i in range(40))


def wait_for_file(x: int, folder: str) -> int:
    """Item 1 of the first stage ends only once item 0 has passed the second."""
    import pathlib

    deadline = time.monotonic() + 20
    while x == 1 and not pathlib.Path(folder, "0").exists():
        assert time.monotonic() < deadline, "the second stage did not begin"
        time.sleep(0.01)
    return x


def leave_file(x: int, folder: str) -> int:
    import pathlib

    pathlib.Path(folder, str(x)).touch()
    return x


def test_a_chain_of_maps_streams(run: Callable[..., Run], tmp_path: Any) -> None:
    """An item of the second stage starts when its own item of the first is done, not when all are."""
    stages = [
        stage("n", numbers),
        stage("folder", whole_input_folder),
        mapped("a", wait_for_file, "n", "folder"),
        mapped("b", leave_file, "a", "folder"),
    ]
    assert run(stages, {"n": 2, "folder": str(tmp_path)}).result() == [0, 1]


def whole_input_folder(folder: str) -> str:
    return folder


def rendezvous(x: int, folder: str) -> int:
    """Ends only when another item runs at the same time."""
    import pathlib

    pathlib.Path(folder, str(x)).touch()
    deadline = time.monotonic() + 20
    while not pathlib.Path(folder, str(1 - x)).exists():
        assert time.monotonic() < deadline, "the items did not run at once"
        time.sleep(0.01)
    return x


def test_items_run_in_parallel(run: Callable[..., Run], tmp_path: Any) -> None:
    """Two items that wait for each other both end."""
    stages = [stage("n", numbers), stage("folder", whole_input_folder), mapped("m", rendezvous, "n", "folder")]
    assert run(stages, {"n": 2, "folder": str(tmp_path)}).result() == [0, 1]

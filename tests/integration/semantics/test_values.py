"""Values between stages and at the end."""

import threading
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from flowtilla import Run, Workflow
from flowtilla.errors import RunFailed
from flowtilla_worker.testing import run_workflow
from semantics import echo, mapped, numbers, one, stage


class Point:
    """A class that is not plain data."""

    def __init__(self, x: int) -> None:
        self.x = x


def a_list() -> list[int]:
    return [1, 2]


def appends(xs: list[int]) -> list[int]:
    xs.append(3)
    return xs


def appends_later(xs: list[int], after: list[int]) -> list[int]:
    return xs


def make_point() -> Point:
    return Point(3)


def is_point(point: Any) -> bool:
    return type(point) is Point and isinstance(point, Point)


def a_tuple() -> tuple[int, int]:
    return (1, 2)


def class_of(x: Any) -> str:
    return type(x).__name__


def test_stages_share_no_mutable_value(run: Callable[..., Run]) -> None:
    """What one stage does to its argument no other stage sees."""
    stages = [stage("a", a_list), stage("b", appends, "a"), stage("c", appends_later, "a", "b")]
    assert run(stages).result() == [1, 2]


def appends_to_broadcast(item: int, shared: list[int]) -> int:
    shared.append(item)
    return len(shared)


def test_items_share_no_mutable_value(run: Callable[..., Run]) -> None:
    """Each item of a mapped stage has the broadcast value to itself."""
    stages = [stage("n", numbers), stage("a", a_list), mapped("m", appends_to_broadcast, "n", "a")]
    assert run(stages, {"n": 4}).result() == [3, 3, 3, 3]


def rows_and_array(_: object = None) -> dict[str, Any]:
    return {"rows": [1, 2], "array": numpy.arange(1000)}


def writes_into_rows(value: dict[str, Any]) -> list[Any]:
    value["rows"].append(3)
    return [value["rows"], int(value["array"].sum())]


def writes_into_array(value: dict[str, Any]) -> int:
    value["array"][0] = 7
    return int(value["array"][0])


def test_arrays_in_readonly_arguments_cannot_be_written_to(run: Callable[..., Run]) -> None:
    """They are not copied, so writing is an error; everything else is the stage's own, and the answer the same."""
    stages = [
        stage("a", rows_and_array),
        stage("b", writes_into_rows, "a", readonly_arguments=True),
        stage("c", writes_into_rows, "a", readonly_arguments=True),
        stage("own", writes_into_array, "a"),
    ]
    assert run(stages).result() == {"b": [[1, 2, 3], 499_500], "c": [[1, 2, 3], 499_500], "own": 7}

    refused = run([stage("a", rows_and_array), stage("b", writes_into_array, "a", readonly_arguments=True)])
    with pytest.raises(RunFailed, match="read-only") as raised:
        refused.result()
    assert (raised.value.stage, raised.value.error) == ("b", "ValueError")


def test_arrays_among_readonly_items_cannot_be_written_to(run: Callable[..., Run]) -> None:
    """Of mapped stages too, whose items may be in pieces and whose lists are joined."""
    stages = [
        stage("n", numbers),
        mapped("a", rows_and_array, "n"),
        mapped("b", writes_into_rows, "a", readonly_arguments=True),
        mapped("c", writes_into_array, "a", readonly_arguments=True, allow_partial_failure=True, retries=1),
        stage("sums", sums, "a", readonly_arguments=True),
    ]
    failed = run(stages, {"n": 3})
    with pytest.raises(RunFailed, match="read-only") as raised:
        failed.result()

    assert (raised.value.stage, raised.value.error, raised.value.item) == ("c", "ValueError", 0)
    assert failed.stages["b"].done == failed.stages["b"].total == 3
    assert run([one for one in stages if one.name != "c"], {"n": 3}).result() == {
        "b": [[[1, 2, 3], 499_500]] * 3,
        "sums": [499_500] * 3,
    }


def sums(values: list[dict[str, Any]]) -> list[int]:
    return [int(value["array"].sum()) for value in values]


def test_a_class_stays_the_same_class(run: Callable[..., Run]) -> None:
    """An instance is an instance of the very class that the next stage knows."""
    assert run([stage("a", make_point), stage("b", is_point, "a")]).result() is True


def test_a_tuple_stays_a_tuple_between_stages(run: Callable[..., Run]) -> None:
    """Values travel as what they are, not as JSON."""
    assert run([stage("a", a_tuple), stage("b", class_of, "a")]).result() == "tuple"


def a_lock() -> Any:
    return threading.Lock()


def test_a_value_that_cannot_be_stored_fails_its_stage(run: Callable[..., Run]) -> None:
    """An unpicklable value is an error that names stage and class, never a silent string."""
    failed = run([stage("a", a_lock), stage("b", echo, "a")])

    with pytest.raises(RunFailed, match="lock") as raised:
        failed.result()
    assert (raised.value.stage, raised.value.error) == ("a", "flowtilla.errors.ValueNotStorable")


def test_a_result_that_is_no_data_fails_its_stage(run: Callable[..., Run]) -> None:
    """A final value of a class that no format holds is an error, not a pickle."""
    with pytest.raises(RunFailed, match="Point") as raised:
        run([stage("a", make_point)]).result()
    assert (raised.value.stage, raised.value.error) == ("a", "flowtilla.errors.ValueNotStorable")


def test_a_large_result_comes_back_whole(run: Callable[..., Run]) -> None:
    """A result over 64 KiB is resolved from storage by `result()`."""
    assert run([stage("n", numbers)], {"n": 50_000}).result() == list(range(50_000))


def many_bytes() -> bytes:
    return bytes(range(256)) * 1000


def test_results_of_several_kinds_come_back(run: Callable[..., Run]) -> None:
    """Inline and stored results of several final stages are put together."""
    result = run([stage("a", one), stage("b", many_bytes)]).result()
    assert result == {"a": 1, "b": bytes(range(256)) * 1000}


def big(_: object = None) -> bytes:
    return bytes(1024 * 1024)


def files_held(_: object) -> int:
    from flowtilla_executors.local import child

    return sum(len(list(directory.glob("value-*"))) for directory in child._directories)


def test_values_that_nobody_needs_any_more_are_freed() -> None:
    """A chain of big values holds two of them at a time, not all."""
    chain = [
        stage("s0", big),
        *(stage(f"s{i}", big, f"s{i - 1}") for i in range(1, 10)),
        stage("held", files_held, "s9"),
    ]
    run = run_workflow(Workflow("freed", chain), executor={"target": "local", "mode": "processes", "cpus": 1})
    assert run.result() <= 2

"""Stages that raise."""

from collections.abc import Callable

import pytest

import flowtilla
from flowtilla import Run
from flowtilla.errors import RunFailed
from semantics import echo, fail, fail_on_odd, mapped, numbers, one, stage, total


class CityError(Exception):
    """A class of the user's own."""


def fail_with_cause() -> None:
    try:
        raise KeyError("oslo")
    except KeyError as error:
        raise CityError("no temperatures for oslo") from error


def test_a_failure_carries_class_message_traceback_and_stage(run: Callable[..., Run]) -> None:
    """`RunFailed` says what was raised, where, and why."""
    with pytest.raises(RunFailed) as raised:
        run([stage("a", fail_with_cause)]).result()

    error = raised.value
    assert error.error.endswith("CityError")
    assert (error.error_message, error.stage, error.item) == ("no temperatures for oslo", "a", None)
    assert "KeyError: 'oslo'" in error.traceback
    assert "in fail_with_cause" in error.traceback
    assert "flowtilla_executors" not in error.traceback


def test_what_depends_on_a_failure_is_skipped_and_the_rest_finishes(run: Callable[..., Run]) -> None:
    """A failed stage fails the run; its descendants are skipped; independent stages still finish."""
    failed = run(
        [
            stage("bad", fail),
            stage("child", echo, "bad"),
            mapped("grandchild", echo, "child"),
            stage("good", one),
            stage("after_good", echo, "good"),
        ]
    )
    assert failed.state == "failed"
    states = {name: str(record.state) for name, record in failed.stages.items()}
    assert states == {
        "bad": "failed",
        "child": "skipped",
        "grandchild": "skipped",
        "good": "finished",
        "after_good": "finished",
    }


def test_a_failed_item_fails_the_stage_with_the_first_failure(run: Callable[..., Run]) -> None:
    """The error of the lowest failing item is the run's, however many run at once."""
    with pytest.raises(RunFailed) as raised:
        run([stage("n", numbers), mapped("m", fail_on_odd, "n"), stage("t", total, "m")], {"n": 50}).result()
    assert (raised.value.stage, raised.value.item, raised.value.error_message) == ("m", 1, "1 is odd")


def test_partial_failure_leaves_failed_items_out_and_records_them(run: Callable[..., Run]) -> None:
    """With `allow_partial_failure` the list lacks them, and the run knows each with its index and error."""
    ended = run(
        [stage("n", numbers), mapped("m", fail_on_odd, "n", allow_partial_failure=True), stage("t", total, "m")],
        {"n": 7},
    )
    assert ended.result() == 12
    record = ended.stages["m"]
    assert (record.done, record.failed, record.total) == (4, 3, 7)
    assert {index: error.message for index, error in record.errors.items()} == {
        1: "1 is odd",
        3: "3 is odd",
        5: "5 is odd",
    }


def test_items_keep_their_index_along_a_chain(run: Callable[..., Run]) -> None:
    """After an item was left out, those behind it keep their index in the next map."""
    ended = run(
        [
            stage("n", numbers),
            mapped("m", fail_on_odd, "n", allow_partial_failure=True),
            mapped("i", item_index, "m"),
        ],
        {"n": 6},
    )
    assert ended.result() == [0, 2, 4]


def item_index(x: int) -> int | None:
    return flowtilla.context().item


def test_if_every_item_fails_the_stage_fails(run: Callable[..., Run]) -> None:
    """Partial failure is not total failure."""
    with pytest.raises(RunFailed) as raised:
        run([stage("n", numbers), mapped("m", fail, "n", allow_partial_failure=True)], {"n": 3}).result()
    assert (raised.value.stage, raised.value.item) == ("m", 0)


def exits() -> None:
    raise SystemExit(3)


def test_a_stage_that_exits_fails_and_the_worker_lives(run: Callable[..., Run]) -> None:
    """`sys.exit()` in a stage is a failure like any other."""
    with pytest.raises(RunFailed) as raised:
        run([stage("a", exits)]).result()
    assert (raised.value.error, raised.value.stage) == ("SystemExit", "a")
    assert run([stage("a", one)]).result() == 1

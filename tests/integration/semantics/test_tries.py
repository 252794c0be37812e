"""Async stages, retries, timeouts, resources."""

import asyncio
import itertools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import pytest

import flowtilla
from flowtilla import Run, Stage
from flowtilla.errors import RunFailed
from semantics import mapped, numbers, one, square, stage, total


async def async_square(x: int) -> int:
    await asyncio.sleep(0.001)
    return x * x


def test_async_stages_work_mapped_or_not(run: Callable[..., Run]) -> None:
    """`async def` is as good as `def`."""
    stages = [stage("a", async_square), mapped("m", async_square, "n"), stage("n", numbers)]
    assert run(stages, {"x": 3, "n": 3}).result() == {"a": 9, "m": [0, 1, 4]}


def fails_twice(folder: str) -> int:
    tries = len(list(pathlib.Path(folder).iterdir()))
    pathlib.Path(folder, str(tries)).touch()
    if tries < 2:
        raise ConnectionError(f"try {tries}")
    return tries


def test_retries_try_again(run: Callable[..., Run], tmp_path: Any) -> None:
    """A stage that fails twice and may be retried twice ends well, and says how often it was tried."""
    ended = run([stage("a", fails_twice, retries=2)], {"folder": str(tmp_path)})
    assert ended.result() == 2
    assert ended.stages["a"].retries == 2


def test_retries_are_for_the_exceptions_they_name(run: Callable[..., Run], tmp_path: Any) -> None:
    """`on` matches the class or a base class, and nothing else is tried again."""
    only_timeouts = {"count": 5, "on": ["TimeoutError"]}
    with pytest.raises(RunFailed, match="try 0"):
        run([stage("a", fails_twice, retries=only_timeouts)], {"folder": str(tmp_path)}).result()

    os_errors = {"count": 5, "on": ["OSError"]}
    assert run([stage("a", fails_twice, retries=os_errors)], {"folder": str(tmp_path)}).result() == 2


def sleeps(x: float) -> float:
    deadline = time.monotonic() + x
    while time.monotonic() < deadline and not flowtilla.context().cancelled:
        time.sleep(0.01)
    return x


def test_a_timeout_fails_the_item_that_takes_too_long(run: Callable[..., Run]) -> None:
    """The timeout holds for each item; the error says which, and which limit."""
    with pytest.raises(RunFailed, match=r"0\.5 ?s") as raised:
        run([mapped("m", sleeps, map_on="x", timeout="500ms")], {"x": [0, 60, 0]}).result()
    assert (raised.value.error, raised.value.stage, raised.value.item) == ("flowtilla.errors.StageTimeout", "m", 1)


def test_a_run_has_a_timeout_of_its_own(run: Callable[..., Run]) -> None:
    """The whole run may take so long and no longer."""
    ended = run([stage("a", sleeps)], {"x": 60}, timeout="300ms")
    with pytest.raises(RunFailed, match=r"the run took longer than its timeout of 0\.3 s"):
        ended.result()
    assert ended.stages["a"].state == "cancelled"


def test_resources_are_honoured_and_impossible_ones_refused(run: Callable[..., Run]) -> None:
    """A logical resource that the executor has is used; one that it has not is an error that says what there is."""
    wheels = {"hamster_wheels": 1}
    assert run([stage("n", numbers), mapped("m", square, "n", resources=wheels)], {"n": 5}).result() == [0, 1, 4, 9, 16]
    with pytest.raises(RunFailed, match="hamster_wheels") as raised:
        run([stage("a", one, resources={"hamster_wheels": 3})]).result()
    assert (raised.value.error, raised.value.stage) == ("flowtilla.errors.ResourcesUnavailable", "a")


def finds_company(x: int, folder: str) -> bool:
    """Returns whether another item is there while this one is."""
    place, context = pathlib.Path(folder), flowtilla.context()
    mine = place / f"{context.stage}-{context.item}"
    mine.touch()
    try:
        deadline = time.monotonic() + 0.1
        while (alone := list(place.iterdir()) == [mine]) and time.monotonic() < deadline:
            time.sleep(0.005)
        return not alone
    finally:
        mine.unlink()


def test_items_that_need_the_only_one_of_something_run_one_by_one(run: Callable[..., Run], tmp_path: Any) -> None:
    """Those that need it never run side by side, be they of one mapped stage or of two; others do."""
    given = {"x": list(range(8)), "folder": str(tmp_path)}
    wheel = {"map_on": "x", "resources": {"wheels": 1}}

    alone = run([mapped("first", finds_company, **wheel), mapped("second", finds_company, **wheel)], given)

    assert alone.result() == {"first": [False] * 8, "second": [False] * 8}
    assert any(run([mapped("free", finds_company, map_on="x")], given).result())


# Retries of items


def fails_at_first(x: int, folder: str, times: int = 1) -> int:
    """Fails so many times for each odd item, and leaves a line each time it is called."""
    notes = pathlib.Path(folder, str(x))
    with notes.open("a") as file:
        file.write(f"{time.time()}\n")
    if x % 2 and len(notes.read_text().splitlines()) <= times:
        raise ConnectionError(f"item {x} failed")
    return x


def calls_of(folder: pathlib.Path) -> dict[str, list[float]]:
    """Returns when each item was called."""
    return {file.name: [float(line) for line in file.read_text().split()] for file in folder.iterdir()}


def test_items_are_tried_again_each_by_itself(run: Callable[..., Run], tmp_path: Any) -> None:
    """Those that failed, and no others; the stage says how many tries followed a failed one."""
    ended = run([mapped("m", fails_at_first, map_on="x", retries=1)], {"x": [0, 1, 2, 3], "folder": str(tmp_path)})

    assert ended.result() == [0, 1, 2, 3]
    assert {name: len(calls) for name, calls in calls_of(tmp_path).items()} == {"0": 1, "1": 2, "2": 1, "3": 2}
    assert ended.stages["m"].retries == 2


def test_an_item_that_goes_on_failing_is_left_out(run: Callable[..., Run], tmp_path: Any) -> None:
    """With partial failure, after its last try; without, the stage fails with it."""
    given = {"x": [0, 1, 2], "folder": str(tmp_path / "one"), "times": 9}
    pathlib.Path(given["folder"]).mkdir()
    stage = mapped("m", fails_at_first, map_on="x", retries=2, allow_partial_failure=True)
    ended = run([stage], given)

    assert ended.result() == [0, 2]
    assert (ended.stages["m"].retries, list(ended.stages["m"].errors)) == (2, [1])
    assert len(calls_of(tmp_path / "one")["1"]) == 3

    pathlib.Path(tmp_path / "two").mkdir()
    with pytest.raises(RunFailed, match="item 1 failed") as raised:
        run([mapped("m", fails_at_first, map_on="x", retries=2)], given | {"folder": str(tmp_path / "two")}).result()
    assert raised.value.item == 1
    assert len(calls_of(tmp_path / "two")["1"]) == 3


def test_items_are_tried_again_for_the_exceptions_they_name(run: Callable[..., Run], tmp_path: Any) -> None:
    """As stages are."""
    only_timeouts = {"count": 5, "on": ["TimeoutError"]}
    given = {"x": [0, 1, 2], "folder": str(tmp_path)}
    with pytest.raises(RunFailed, match="item 1 failed"):
        run([mapped("m", fails_at_first, map_on="x", retries=only_timeouts)], given).result()

    assert len(calls_of(tmp_path)["1"]) == 1


@pytest.mark.parametrize("kind", [stage, mapped])
def test_tries_are_apart_as_they_should_be(run: Callable[..., Run], tmp_path: Any, kind: Callable[..., Stage]) -> None:
    """The first delay, then each so many times the one before, and none longer than the longest."""
    waits = {"count": 3, "delay": "200ms", "backoff": 3, "max_delay": "400ms", "jitter": 0}
    options = {"map_on": "x"} if kind is mapped else {}
    x = [1] if kind is mapped else 1
    run([kind("s", fails_at_first, retries=waits, **options)], {"x": x, "folder": str(tmp_path), "times": 3}).result()

    (calls,) = calls_of(tmp_path).values()
    gaps = [later - earlier for earlier, later in itertools.pairwise(calls)]
    assert all(wait <= gap < wait + 2 for wait, gap in zip([0.2, 0.4, 0.4], gaps, strict=True)), gaps


# Time that is over


def tidies_up_late(folder: str, x: int = 0) -> str:
    """Hangs at its first try, and takes a moment to end when its time is over."""
    first, second = pathlib.Path(folder, f"first{x}"), pathlib.Path(folder, f"second{x}")
    if first.exists():
        second.touch()
        return first.read_text()
    first.write_text("still there")
    while not flowtilla.context().cancelled:
        time.sleep(0.01)
    time.sleep(0.5)
    first.write_text("beside the second" if second.exists() else "left before")
    return "nobody takes this"


@pytest.mark.parametrize("kind", [stage, mapped])
def test_a_try_that_took_too_long_has_ended_before_the_next(
    run: Callable[..., Run], tmp_path: Any, kind: Callable[..., Stage]
) -> None:
    """Two tries of one stage never run side by side."""
    options = {"map_on": "x", "type": "parameterized"} if kind is mapped else {}
    retried = stage("s", tidies_up_late, timeout="300ms", retries={"count": 1, "on": ["StageTimeout"]}, **options)
    result = run([retried], {"folder": str(tmp_path), "x": [7] if kind is mapped else 7}).result()

    assert result == (["left before"] if kind is mapped else "left before")


def sleeps_and_tells(x: float, folder: str) -> float:
    file = pathlib.Path(folder, f"{flowtilla.context().item}")
    file.write_text("begun")
    sleeps(x)
    file.write_text("ended")
    return x


@pytest.mark.parametrize("partial", [False, True])
def test_a_mapped_stage_has_a_timeout_as_a_whole(run: Callable[..., Run], tmp_path: Any, partial: bool) -> None:
    """However many items had ended: the stage fails, and nothing of it runs when the run has ended."""
    together = mapped("m", sleeps_and_tells, map_on="x", stage_timeout="8s", timeout=50, allow_partial_failure=partial)
    begun = time.monotonic()
    ended = run([together, stage("after", total, "m")], {"x": [0, 60, 60, 60], "folder": str(tmp_path)})

    with pytest.raises(RunFailed, match=r"stage 'm' with all its items .* stage_timeout of 8s") as raised:
        ended.result()
    assert time.monotonic() - begun < 20
    assert (raised.value.error, raised.value.stage, raised.value.item) == ("flowtilla.errors.StageTimeout", "m", None)
    record = ended.stages["m"]
    assert (record.state, record.total, record.done, record.failed) == ("failed", 4, 1, 0)
    assert ended.stages["after"].state == "skipped"
    assert {file.read_text() for file in tmp_path.iterdir()} == {"ended"}


def test_a_stage_has_a_timeout_for_all_its_tries(run: Callable[..., Run], tmp_path: Any) -> None:
    """And the delays between them."""
    waits = {"count": 50, "delay": "60s"}
    given = {"x": 1, "folder": str(tmp_path), "times": 99}
    begun = time.monotonic()
    with pytest.raises(RunFailed, match=r"stage 's' with all its tries .* stage_timeout of 4s"):
        run([stage("s", fails_at_first, retries=waits, stage_timeout="4s")], given).result()

    assert time.monotonic() - begun < 20
    assert len(calls_of(tmp_path)["1"]) == 1


def test_the_time_of_a_mapped_stage_begins_with_its_first_item(run: Callable[..., Run]) -> None:
    """Waiting for the stage that it maps over does not count."""
    stages = [mapped("slow", sleeps, map_on="x"), mapped("quick", square, "slow", stage_timeout="4s")]
    assert run(stages, {"x": [5]}).result() == [25]

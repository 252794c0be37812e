"""What a stage finds when it begins, however early the executor was told of it: its parents, done and visible."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flowtilla
from flowtilla import Run
from flowtilla.errors import RunFailed
from semantics import add, echo, fail, mapped, numbers, one, stage, total


def stores(x: int = 1) -> int:
    flowtilla.artifacts.put("made", {"x": x})
    return x


def reads(x: int) -> int:
    return x + int(flowtilla.artifacts.get("made").read()["x"])


def notes(x: int) -> int:
    Path(flowtilla.context().input["folder"], f"ran-{flowtilla.context().stage}-{time.monotonic_ns()}").touch()
    return x


def ran(folder: Path, stage: str) -> int:
    """Returns how often a stage that `notes` ran."""
    return len(list(folder.glob(f"ran-{stage}-*")))


def test_a_stage_sees_what_its_parents_stored(run: Callable[..., Run], tmp_path: Path) -> None:
    """An artifact is visible to the stages that follow, at any distance, and each of them runs once."""
    stages = [
        stage("a", stores),
        stage("b", reads, "a"),
        stage("c", notes, "b"),
        stage("d", reads, "c"),
        stage("e", notes, "d"),
    ]
    assert run(stages, {"folder": str(tmp_path)}).result() == 3
    assert (ran(tmp_path, "c"), ran(tmp_path, "e")) == (1, 1)


def flaky(folder: str) -> int:
    tries = len(list(Path(folder).glob("try-*")))
    Path(folder, f"try-{tries}").touch()
    if tries < 2:
        raise ConnectionError(f"try {tries}")
    return tries


def test_what_follows_a_stage_that_is_tried_again(run: Callable[..., Run], tmp_path: Path) -> None:
    """It gets the value of the try that succeeded, and runs once."""
    stages = [stage("a", flaky, retries={"count": 2, "delay": 0}), stage("b", notes, "a"), stage("c", notes, "b")]
    assert run(stages, {"folder": str(tmp_path)}).result() == 2
    assert (ran(tmp_path, "b"), ran(tmp_path, "c")) == (1, 1)


def test_what_follows_a_stage_that_fails_does_not_run(run: Callable[..., Run], tmp_path: Path) -> None:
    """Nor what follows that; what stands beside it does."""
    stages = [
        stage("a", one),
        stage("bad", fail, "a"),
        stage("b", notes, "bad"),
        stage("c", add, "b", "a"),
        stage("d", notes, "a"),
        stage("e", notes, "d"),
    ]
    ended = run(stages, {"folder": str(tmp_path)})
    with pytest.raises(RunFailed, match="no such city"):
        ended.result()
    states = {name: str(record.state) for name, record in ended.stages.items()}
    assert states == {
        "a": "finished", "bad": "failed", "b": "skipped", "c": "skipped", "d": "finished", "e": "finished"
    }  # fmt: skip
    assert (ran(tmp_path, "b"), ran(tmp_path, "d"), ran(tmp_path, "e")) == (0, 1, 1)


def slow(folder: str) -> str:
    time.sleep(0.3)
    Path(folder, "slow-ended").touch()
    return "slow"


def was_slow_done(first: Any) -> bool:
    return Path(flowtilla.context().input["folder"], "slow-ended").exists()


def test_a_parent_whose_value_is_not_taken_is_waited_for(run: Callable[..., Run], tmp_path: Path) -> None:
    """A function that takes fewer values than its stage has parents begins after all of them."""
    stages = [stage("a", one), stage("b", slow), stage("c", was_slow_done, "a", "b")]
    assert run(stages, {"folder": str(tmp_path)}).result() is True


def test_a_wide_and_deep_workflow_comes_out_right(run: Callable[..., Run]) -> None:
    """More stages than are submitted ahead, across maps too."""
    chain = [stage("s0", one), *[stage(f"s{i}", echo, f"s{i - 1}") for i in range(1, 90)]]
    wide = [stage(f"w{i}", add, "s0", "s1") for i in range(80)]
    maps = [stage("n", numbers), mapped("m", echo, "n"), stage("t", total, "m"), stage("u", add, "t", "s89")]
    result = run([*chain, *wide, *maps], {"n": 4}).result()

    assert result.pop("u") == 7
    assert result == {f"w{i}": 2 for i in range(80)}


def test_nothing_of_a_run_that_is_over_runs_on(run: Callable[..., Run], tmp_path: Path) -> None:
    """Stages that waited for one that is stopped never begin."""
    stages = [stage("a", waits, timeout="20s"), stage("b", notes, "a"), stage("c", notes, "b")]
    ended = run(stages, {"folder": str(tmp_path)}, timeout="500ms")

    with pytest.raises(RunFailed, match=r"longer than its timeout of 0\.5 s"):
        ended.result()
    assert run([stage("z", one)]).result() == 1
    assert (ran(tmp_path, "b"), ran(tmp_path, "c")) == (0, 0)


def waits() -> None:
    while not flowtilla.context().cancelled:
        time.sleep(0.01)

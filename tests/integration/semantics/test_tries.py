"""Async stages, retries, timeouts, resources."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

import flowtilla
from flowtilla import Run
from flowtilla.errors import RunFailed
from semantics import mapped, numbers, one, square, stage


async def async_square(x: int) -> int:
    await asyncio.sleep(0.001)
    return x * x


def test_async_stages_work_mapped_or_not(run: Callable[..., Run]) -> None:
    """`async def` is as good as `def`."""
    stages = [stage("a", async_square), mapped("m", async_square, "n"), stage("n", numbers)]
    assert run(stages, {"x": 3, "n": 3}).result() == {"a": 9, "m": [0, 1, 4]}


def fails_twice(folder: str) -> int:
    import pathlib

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

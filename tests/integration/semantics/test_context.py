"""What stages learn of where they run, and what they leave: logs, artifacts, objects."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import pytest

import flowtilla
from flowtilla import Run
from flowtilla_executors import Executor
from semantics import mapped, stage


def describes_context(x: int) -> dict[str, Any]:
    context = flowtilla.context()
    return {
        "workflow": context.workflow,
        "stage": context.stage,
        "item": context.item,
        "attempt": context.attempt,
        "namespace": context.namespace,
        "executor": context.executor,
        "input": context.input,
        "config": context.config,
        "cancelled": context.cancelled,
        "in_time": context.deadline is not None and context.deadline > time.time(),
        "run_id": context.run_id,
    }


def test_the_context_says_where_a_stage_runs(run: Callable[..., Run], executor: Executor[Any]) -> None:
    """Run id, namespace, workflow, stage, item, attempt, input, config, executor, deadline."""
    ended = run(
        [mapped("m", describes_context, map_on="x", timeout=60)],
        {"x": [5]},
        namespace="research",
        config={"depth": 3},
    )
    assert ended.result() == [
        {
            "workflow": "tested",
            "stage": "m",
            "item": 0,
            "attempt": 1,
            "namespace": "research",
            "executor": executor.kind,
            "input": {"x": [5]},
            "config": {"depth": 3},
            "cancelled": False,
            "in_time": True,
            "run_id": ended.id,
        }
    ]


def seconds_left(_: Any = None) -> float | None:
    deadline = flowtilla.context().deadline
    return None if deadline is None else deadline - time.time()


@pytest.mark.parametrize(
    ("limits", "timeout", "nearest"),
    [
        ({}, None, None),
        ({"timeout": 80}, None, 80),
        ({"timeout": 800, "stage_timeout": 80}, 900, 80),
        ({"timeout": 80, "stage_timeout": 800}, 900, 80),
        ({"timeout": 900, "stage_timeout": 800}, 80, 80),
        ({}, 80, 80),
    ],
)
def test_the_deadline_is_when_the_first_limit_is_reached(
    run: Callable[..., Run], limits: dict[str, Any], timeout: float | None, nearest: float | None
) -> None:
    """Of item, stage and run; of a root, of what follows it and of an item."""
    stages = [
        stage("a", seconds_left, **limits),
        stage("b", seconds_left, "a", **limits),
        mapped("m", seconds_left, map_on="x", **limits),
    ]
    found = run(stages, {"x": [1]}, timeout=timeout).result()
    for left in (found["b"], *found["m"]):
        assert left is None if nearest is None else nearest - 60 < left <= nearest


def begins_late() -> float:
    time.sleep(0.5)
    return time.time()


def seconds_left_of(begun: float) -> float:
    return (flowtilla.context().deadline or 0) - begun


def test_the_deadline_of_a_stage_counts_from_when_it_could_begin(run: Callable[..., Run]) -> None:
    """Also where stages are submitted before their parents have ended."""
    left = run([stage("a", begins_late), stage("b", seconds_left_of, "a", stage_timeout=80)]).result()
    assert 80 <= left < 100


def fails_first(folder: str) -> list[float]:
    file = pathlib.Path(folder, "deadlines")
    with file.open("a") as opened:
        opened.write(f"{flowtilla.context().deadline}\n")
    deadlines = [float(line) for line in file.read_text().splitlines()]
    if len(deadlines) < 3:
        raise ConnectionError("once more")
    return deadlines


def test_all_tries_of_a_stage_have_one_deadline(run: Callable[..., Run], tmp_path: Any) -> None:
    """That of the stage, where it is the first."""
    limited = stage("a", fails_first, retries={"count": 2, "delay": 0.1}, timeout=100, stage_timeout=80)
    assert len(set(run([limited], {"folder": str(tmp_path)}).result())) == 1


def changes_context() -> int:
    flowtilla.context().input["x"] = 99
    return 0


def test_a_stage_cannot_change_the_input_of_another(run: Callable[..., Run]) -> None:
    """The context's input and config are each stage's own."""
    assert run([stage("a", changes_context), stage("b", sees_input, "a")], {"x": 1}).result() == 1


def sees_input(_: int) -> int:
    x: int = flowtilla.context().input["x"]
    return x


def writes_much(x: int) -> int:
    import logging
    import sys

    print("printed", x)
    print("complained", x, file=sys.stderr)
    logging.getLogger("my.app").warning("warned %d", x)
    flowtilla.context().logger.info("noted %d", x)
    return x


def test_everything_a_stage_writes_is_in_the_runs_log(run: Callable[..., Run]) -> None:
    """print, stderr and logging, attributed to stage and item, in order."""
    lines = list(run([mapped("m", writes_much, map_on="x")], {"x": [7, 8]}).logs())
    for item, x in enumerate([7, 8]):
        own = [(line.source, line.level, line.message) for line in lines if line.item == item]
        assert own == [
            ("stdout", "INFO", f"printed {x}"),
            ("stderr", "WARNING", f"complained {x}"),
            ("my.app", "WARNING", f"warned {x}"),
            ("flowtilla.stage.m", "INFO", f"noted {x}"),
        ]
    assert {line.stage for line in lines} == {"m"}


def stores(x: int) -> int:
    flowtilla.artifacts.put(f"square-{x}", {"x": x, "square": x * x})
    return int(flowtilla.artifacts.get(f"square-{x}").read()["square"])


def test_artifacts_are_published_with_their_stage(run: Callable[..., Run]) -> None:
    """What stages store is found by name on the run, and read back as what it was."""
    ended = run([mapped("m", stores, map_on="x")], {"x": [2, 3]}, namespace="research")
    assert ended.result() == [4, 9]
    assert sorted(ended.artifacts) == ["square-2", "square-3"]
    assert ended.artifacts["square-3"].read() == {"x": 3, "square": 9}


def stores_then_fails() -> None:
    flowtilla.artifacts.put("half", "done")
    raise RuntimeError("after storing")


def test_a_failed_stage_publishes_nothing(run: Callable[..., Run]) -> None:
    """What a stage stored before it raised is not to be seen."""
    failed = run([stage("a", stores_then_fails)])
    assert failed.state == "failed"
    assert failed.artifacts == {}


def puts_object(x: int) -> int:
    flowtilla.objects.put("answer", [x])
    return x


def gets_object(_: int) -> list[int]:
    value: list[int] = flowtilla.objects.get("answer")
    return value


def test_objects_are_shared_between_stages(run: Callable[..., Run]) -> None:
    """What one stage puts another gets, in the run's namespace."""
    assert run([stage("a", puts_object), stage("b", gets_object, "a")], {"x": 42}).result() == [42]


def gets_nothing() -> bool:
    try:
        flowtilla.objects.get("nothing-here")
    except KeyError:
        return True
    return False


def test_a_missing_object_is_a_key_error(run: Callable[..., Run]) -> None:
    """`ObjectNotFound` is a `KeyError`."""
    assert run([stage("a", gets_nothing)]).result() is True

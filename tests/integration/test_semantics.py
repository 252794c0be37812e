"""Every sentence of what a workflow means, on every executor, with the same answer."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import flowtilla
from flowtilla import Run, Stage, Workflow
from flowtilla.errors import InvalidWorkflow, RunFailed
from flowtilla_executors import Executor
from flowtilla_worker.testing import run_workflow, started_executor

#: The executors the suite runs on. Another back end is one line.
EXECUTORS: dict[str, dict[str, Any]] = {
    "local-threads": {"target": "local", "mode": "threads", "cpus": 2, "resources": {"hamster_wheels": 2}},
    "local-processes": {"target": "local", "mode": "processes", "cpus": 2, "resources": {"hamster_wheels": 2}},
}


@pytest.fixture(scope="module", params=EXECUTORS.values(), ids=EXECUTORS.keys())
def executor(request: pytest.FixtureRequest) -> Iterator[Executor[Any]]:
    """One started executor for all tests of the module."""
    with started_executor(request.param) as started:
        yield started


@pytest.fixture
def run(executor: Executor[Any]) -> Callable[..., Run]:
    """Runs a workflow of stages: `run([Stage(...), ...], input={...})`."""

    def start(stages: list[Stage], input: dict[str, Any] | None = None, **options: Any) -> Run:
        return run_workflow(Workflow("tested", stages), input, executor=executor, **options)

    return start


def stage(name: str, target: Callable[..., Any], *parents: str, **options: Any) -> Stage:
    return Stage(name=name, target=target, depends_on=parents, **options)


def mapped(name: str, target: Callable[..., Any], *parents: str, **options: Any) -> Stage:
    return stage(name, target, *parents, type="parameterized", **options)


# Stages -------------------------------------------------------------------------------------------------------------


def one() -> int:
    return 1


def echo(x: Any) -> Any:
    return x


def add(a: int, b: int) -> int:
    return a + b


def numbers(n: int = 5) -> list[int]:
    return list(range(n))


def square(x: int) -> int:
    return x * x


def total(xs: list[int]) -> int:
    return sum(xs)


def listed(xs: Any) -> list[Any]:
    return list(xs)


def fail(*_: Any) -> None:
    raise LookupError("no such city")


def fail_on_odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


# Input --------------------------------------------------------------------------------------------------------------


def takes(a: int, b: int = 2, *, c: int = 3) -> list[int]:
    return [a, b, c]


def takes_all(**everything: int) -> dict[str, int]:
    return everything


def takes_by_position(a: int, /, b: int) -> list[int]:
    return [a, b]


def whole_input() -> dict[str, Any]:
    return flowtilla.context().input


def test_a_root_gets_the_input_filtered_to_its_parameters(run: Callable[..., Run]) -> None:
    """Input keys become keyword arguments; extra ones are ignored, defaults hold."""
    assert run([stage("a", takes)], {"a": 1, "c": 9, "zzz": 0}).result() == [1, 2, 9]


def test_extra_input_stays_in_the_context(run: Callable[..., Run]) -> None:
    """What no parameter takes is still in `context().input`."""
    assert run([stage("a", whole_input)], {"zzz": [1]}).result() == {"zzz": [1]}


def test_var_keywords_take_the_whole_input(run: Callable[..., Run]) -> None:
    """`**kwargs` works under any name."""
    assert run([stage("a", takes_all)], {"x": 1, "y": 2}).result() == {"x": 1, "y": 2}


def test_positional_only_parameters_are_filled(run: Callable[..., Run]) -> None:
    """A parameter that cannot be named is passed by position."""
    assert run([stage("a", takes_by_position)], {"b": 2, "a": 1}).result() == [1, 2]


def test_missing_input_fails_before_any_stage_runs(run: Callable[..., Run]) -> None:
    """A required parameter that the input lacks fails the run, and no stage is begun."""
    failed = run([stage("first", one), stage("a", takes)], {"b": 1})

    with pytest.raises(RunFailed, match=r"stage 'a'.*requires a, which the input does not have: it has b"):
        failed.result()
    assert failed.stages == {}


# Dependencies -------------------------------------------------------------------------------------------------------


def spread(*values: int) -> list[int]:
    return list(values)


def needs_more(a: int, b: int) -> int:
    return a


def takes_nothing() -> int:
    return 0


def test_parents_come_as_positional_arguments_in_depends_on_order(run: Callable[..., Run]) -> None:
    """Not in the order of declaration, and a parent named twice is passed twice."""
    stages = [
        stage("last", spread, "two", "one", "two"),
        stage("two", add, "one", "one"),
        stage("one", one),
    ]
    assert run(stages).result() == [2, 1, 2]


def test_surplus_parents_are_dropped(run: Callable[..., Run]) -> None:
    """A function with fewer parameters than parents gets the first ones."""
    assert run([stage("a", one), stage("b", fail_on_odd), stage("c", echo, "a", "b")], {"x": 4}).result() == 1


def test_children_get_no_input(run: Callable[..., Run]) -> None:
    """Only roots see the input: a child's other parameters keep their defaults."""
    assert run([stage("a", one), stage("b", takes, "a")], {"b": 7, "c": 7}).result() == [1, 2, 3]


@pytest.mark.parametrize(("target", "said"), [(needs_more, "requires b"), (takes_nothing, "takes no positional")])
def test_a_function_that_cannot_take_its_parents_is_refused_at_once(
    run: Callable[..., Run], target: Callable[..., Any], said: str
) -> None:
    """Too few parents, or a function without parameters, is an error before anything runs."""
    failed = run([stage("a", one), stage("b", target, "a")])

    with pytest.raises(RunFailed, match=said):
        failed.result()
    assert failed.stages == {}


def test_several_final_stages_give_a_mapping(run: Callable[..., Run]) -> None:
    """The result is `{stage: value}` of every stage that no other needs."""
    assert run([stage("a", one), stage("b", echo, "a"), stage("c", one)]).result() == {"b": 1, "c": 1}


def test_none_is_a_value_like_any_other(run: Callable[..., Run]) -> None:
    """A stage may return None, be given None, and end the run with None."""
    assert run([stage("a", echo), stage("b", echo, "a")], {"x": None}).result() is None
    assert run([stage("a", echo), stage("b", listed, "c"), mapped("c", echo, "a")], {"x": [None]}).result() == [None]


# Values -------------------------------------------------------------------------------------------------------------


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


# Maps ---------------------------------------------------------------------------------------------------------------


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


# Failure ------------------------------------------------------------------------------------------------------------


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


# Async, retries, timeouts, resources ----------------------------------------------------------------------------------


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


# Context, logs, artifacts ---------------------------------------------------------------------------------------------


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


# Refused at once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([], "stages is empty"),
        ([{"name": "a b", "target": "m.f"}], r"stages\[0\].name: name 'a b' is not allowed"),
        ([{"name": "a", "target": "m.f"}, {"name": "a", "target": "m.f"}], r"stages\[1\].name: 'a' is already"),
        ([{"name": "a", "target": "m.f", "depends_on": ["b"]}], r"stages\[0\].depends_on\[0\]: no stage is named 'b'"),
        ([{"name": "a", "target": "m.f", "depends_on": ["a"]}], "in a circle: a -> a"),
        ([{"name": "a", "target": "m.f", "type": "magic"}], r"stages\[0\].type: should be 'simple' or 'parameterized'"),
        ([{"name": "a", "target": "m.f", "type": "parameterized"}], "nothing to map over: give map_on"),
        (
            [{"name": "a", "target": "m.f", "timeout": "9 lightyears"}],
            r"stages\[0\].timeout: '9 lightyears' is not a dur",
        ),
        (
            [{"name": "a", "target": "m.f", "resources": {"memory": "8 GBs"}}],
            r"resources.memory: '8 GBs' is not a size",
        ),
        ([{"name": "a", "target": "m.f", "retires": 2}], r"stages\[0\].retires: unknown key; did you mean 'retries'\?"),
        ([{"name": "a", "target": "f"}], r"stages\[0\].target: 'f' is not a dotted path"),
    ],
)
def test_a_broken_rule_is_refused_at_submit(stages: list[dict[str, Any]], said: str) -> None:
    """The error names the field's path, what was given and what is allowed."""
    workflow = {"kind": "workflow", "metadata": {"name": "broken"}, "spec": {"stages": stages}}
    with pytest.raises(InvalidWorkflow, match=said):
        run_workflow(workflow)

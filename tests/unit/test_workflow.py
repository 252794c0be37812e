"""The workflow model, its graph and its units."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtilla import Retries, Stage, Workflow, graph, stage
from flowtilla.decorator import is_stage, options_of
from flowtilla.errors import InvalidName, InvalidWorkflow
from flowtilla.names import check_name
from flowtilla.units import parse_duration, parse_size
from flowtilla.workflow import Resources
from shapes import dags


def some_stage() -> None:
    """A function with an import path."""


def workflow(*stages: Any) -> Workflow:
    return Workflow("w", stages)


def test_a_function_travels_as_its_import_path() -> None:
    """A callable target becomes the dotted path that a worker imports."""
    assert workflow(Stage(name="a", target=some_stage)).stages[0].target == f"{__name__}.some_stage"


@pytest.mark.parametrize("function", [lambda: None, print.__self__, 5])
def test_what_no_worker_can_import_is_refused(function: Any) -> None:
    """A lambda, a module, a number: an error that names the field."""
    with pytest.raises(InvalidWorkflow, match=r"stages\[0\]\.target"):
        workflow({"name": "a", "target": function})


def test_map_on_and_partial_failure_are_read_under_options_too() -> None:
    """Flowdapt's files have them there; both places at once is an error."""
    mapped = {"name": "a", "target": "m.f", "type": "parameterized"}
    given_under = workflow(mapped | {"options": {"map_on": "city", "allow_partial_failure": True}}).stages[0]
    assert (given_under.map_on, given_under.allow_partial_failure) == ("city", True)
    with pytest.raises(InvalidWorkflow, match="given on the stage and under its options"):
        workflow(mapped | {"map_on": "city", "options": {"map_on": "city"}})
    with pytest.raises(InvalidWorkflow, match=r"unknown options \['cpus'\]"):
        workflow(mapped | {"map_on": "city", "options": {"cpus": 1}})


def test_units_and_logical_resources_are_read() -> None:
    """Memory in bytes, durations in seconds, any other resource by name; a bare number of retries is a count."""
    read = workflow(
        {
            "name": "a",
            "target": "m.f",
            "resources": {"cpus": 0.5, "memory": "2GB", "hamster_wheels": 3},
            "timeout": "1.5m",
            "retries": 2,
        }
    ).stages[0]
    assert read.resources == Resources(cpus=0.5, memory=2_000_000_000, hamster_wheels=3)
    assert read.resources is not None and read.resources.logical == {"hamster_wheels": 3}
    assert (read.timeout, read.retries) == (90.0, Retries(count=2))


def test_the_decorator_gives_defaults_and_the_workflow_overrides_them() -> None:
    """`@stage` marks a function, which stays a function; what a workflow says counts more."""

    @stage(retries=3, timeout="10s")
    def decorated(x: int) -> int:
        return x

    assert decorated(4) == 4
    assert is_stage(decorated) and not is_stage(some_stage)
    options = options_of(Stage(name="a", target="m.f", timeout=5), decorated)
    assert (options.retries, options.timeout, options.checkpoint) == (Retries(count=3), 5.0, None)


def test_wire_and_back_is_the_same_workflow() -> None:
    """What travels holds no defaults, and reads as what was written."""
    written = workflow(
        Stage(name="a", target="m.f", retries={"count": 2, "on": ["OSError"]}),
        Stage(name="b", target="m.g", type="parameterized", depends_on=["a"], allow_partial_failure=True),
    )
    assert Workflow.model_validate_json(written.wire_json) == written
    assert json.loads(written.wire_json)["spec"]["stages"][0] == {
        "name": "a",
        "target": "m.f",
        "retries": {"count": 2, "on": ["OSError"]},
    }


def test_final_stages_are_those_nobody_needs() -> None:
    """In order of declaration."""
    stages = [{"name": name, "target": "m.f", "depends_on": parents} for name, parents in DIAMOND.items()]
    assert workflow(*stages).final_stages == ("d", "e")


DIAMOND = {"a": [], "d": ["b", "c"], "b": ["a"], "c": ["a"], "e": []}


@given(dags())
def test_order_puts_every_stage_after_its_parents(nodes: dict[str, list[str]]) -> None:
    """And holds each exactly once."""
    order = graph.order(list(nodes.items()))
    assert sorted(order) == sorted(nodes)
    assert all(order.index(parent) < order.index(name) for name, parents in nodes.items() for parent in parents)


@given(dags(), st.data())
def test_closing_a_circle_is_found(nodes: dict[str, list[str]], data: st.DataObject) -> None:
    """Making an ancestor depend on its descendant is refused, and the circle is shown."""
    name = data.draw(st.sampled_from(sorted(nodes)))
    ancestor = name
    while nodes[ancestor] and data.draw(st.booleans()):
        ancestor = nodes[ancestor][0]
    circular = nodes | {ancestor: [*nodes[ancestor], name]}
    with pytest.raises(ValueError, match=r"in a circle: .* -> "):
        graph.check(list(circular.items()))


@given(st.floats(min_value=0.001, max_value=5000), st.sampled_from(["ms", "s", "m", "h", "d", "w"]))
def test_durations_scale_with_their_unit(amount: float, unit: str) -> None:
    """The same amount in a larger unit is that many times longer."""
    seconds = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[unit]
    assert math.isclose(parse_duration(f"{amount:f} {unit}"), float(f"{amount:f}") * seconds)


@pytest.mark.parametrize("huge", ["5300w", "9" * 400 + "s", 1e300, 10**400, float("inf"), float("nan")])
def test_a_duration_has_an_end(huge: float | str) -> None:
    """What no clock can count is refused where it is written, and does not overflow where it is used."""
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(huge)
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(huge if isinstance(huge, (float, int)) else "9" * 400 + "B")


@given(st.text())
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    """No other exception, and never a negative size."""
    try:
        assert parse_size(text) >= 0
    except ValueError as error:
        assert "is not a size: give bytes" in str(error)


@given(st.text())
def test_any_text_is_a_name_or_invalid(text: str) -> None:
    """A name is ASCII letters, digits, _ and -, at most 128 of them, and nothing else passes."""
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
    if text and set(text) <= allowed and len(text) <= 128:
        assert check_name(text) == text
    else:
        with pytest.raises(InvalidName):
            check_name(text)

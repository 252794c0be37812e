"""What stages are given: the input to roots, parents' values to the others."""

from collections.abc import Callable
from typing import Any

import pytest

import flowtilla
from flowtilla import Run
from flowtilla.errors import RunFailed
from semantics import add, echo, fail_on_odd, listed, mapped, one, stage


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

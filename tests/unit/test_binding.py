"""How functions take their arguments, decided before anything runs."""

from collections.abc import Callable
from typing import Any

import pytest

from flowtilla import Stage
from flowtilla.errors import InvalidWorkflow
from flowtilla_worker.plan.binding import Binding, bind


def root(function: Callable[..., Any], **options: Any) -> Binding:
    return bind(Stage(name="s", target="m.f", **options), function)


def child(function: Callable[..., Any], parents: int = 2, **options: Any) -> Binding:
    return root(function, depends_on=[f"p{number}" for number in range(parents)], **options)


def call(function: Callable[..., Any], binding: Binding, given: dict[str, Any], values: list[Any], item: Any) -> Any:
    """Calls a function as a stage's process does."""
    args = [values[position] for position in binding.parents] + binding.positional_inputs(given)
    kwargs = binding.keyword_inputs(given)
    if isinstance(binding.item, int):
        args.insert(binding.item, item)
    elif binding.item is not None:
        kwargs[binding.item] = item
    return function(*args, **kwargs)


@pytest.mark.parametrize(
    ("function", "given", "expected"),
    [
        (lambda a, b=2: (a, b), {"a": 1, "z": 9}, (1, 2)),
        (lambda a, /, b: (a, b), {"a": 1, "b": 2}, (1, 2)),
        (lambda a=1, b=2, /: (a, b), {"b": 5}, (1, 2)),
        (lambda *args, **anything: (args, anything), {"x": 1}, ((), {"x": 1})),
        (lambda *, c: c, {"c": 3}, 3),
        (dict, {"x": 1}, {}),
    ],
)
def test_a_root_takes_its_parameters_from_the_input(
    function: Callable[..., Any], given: dict[str, Any], expected: Any
) -> None:
    """By name, by position where it must be, all of it for `**kwargs`."""
    assert call(function, root(function), given, [], None) == expected


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a, b: (a, b), ("p0", "p1")),
        (lambda a: a, "p0"),
        (lambda a, b, c=3: (a, b, c), ("p0", "p1", 3)),
        (lambda *args: args, ("p0", "p1")),
        (lambda a, *rest, **anything: (a, rest, anything), ("p0", ("p1",), {})),
    ],
)
def test_a_child_takes_its_parents_by_position_and_no_input(function: Callable[..., Any], expected: Any) -> None:
    """Surplus parents are dropped; `*args` takes all."""
    binding = child(function)
    assert call(function, binding, {}, ["p0", "p1"], None) == expected
    assert binding.missing({}) == []


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda item, b: (item, b), ("item", "p1")),
        (lambda item: item, "item"),
        (lambda *args: args, ("item", "p1")),
    ],
)
def test_the_item_takes_the_place_of_the_first_parent(function: Callable[..., Any], expected: Any) -> None:
    """A mapped child gets the item first and the other parents behind it."""
    assert call(function, child(function, type="parameterized"), {}, ["p0", "p1"], "item") == expected


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a, city, b: (a, city, b), ("p0", "item", "p1")),
        (lambda city, a, b: (city, a, b), ("item", "p0", "p1")),
        (lambda a, b, *, city: (a, b, city), ("p0", "p1", "item")),
        (lambda a, b, extra=1, city=None: (a, b, extra, city), ("p0", "p1", 1, "item")),
        (lambda first, a, b: (first, a, b), ("item", "p0", "p1")),
    ],
)
def test_map_on_passes_the_item_by_name_and_parents_around_it(function: Callable[..., Any], expected: Any) -> None:
    """The parameter of the key's name, or the first; the parents fill the others in order."""
    binding = child(function, type="parameterized", map_on="city")
    assert call(function, binding, {}, ["p0", "p1"], "item") == expected


@pytest.mark.parametrize(
    ("function", "given", "expected"),
    [
        (lambda city, n: (city, n), {"city": [1], "n": 5}, ("item", 5)),
        (lambda n, city: (n, city), {"city": [1], "n": 5}, (5, "item")),
        (lambda x, n=2: (x, n), {"city": [1], "x": 9, "n": 5}, ("item", 5)),
        (lambda city, /, n: (city, n), {"city": [1], "n": 5}, ("item", 5)),
        (lambda n, city, /: (n, city), {"city": [1], "n": 5}, (5, "item")),
        (lambda x, **anything: (x, anything), {"city": [1], "n": 5}, ("item", {"city": [1], "n": 5})),
    ],
)
def test_a_mapped_root_gets_the_item_and_the_rest_of_the_input(
    function: Callable[..., Any], given: dict[str, Any], expected: Any
) -> None:
    """No input fills the item's parameter."""
    binding = root(function, type="parameterized", map_on="city")
    assert call(function, binding, given, [], "item") == expected


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda: None, "takes no positional arguments, but gets the values of p0, p1"),
        (lambda *, k=1: None, "takes no positional arguments"),
        (lambda a, b, c: None, "requires c beyond the 2 values of its parents"),
        (lambda a, *, k: None, "requires k beyond"),
    ],
)
def test_what_cannot_work_is_refused(function: Callable[..., Any], said: str) -> None:
    """The error names stage, target and what is lacking."""
    with pytest.raises(InvalidWorkflow, match=f"stage 's': m.f {said}"):
        child(function)


def test_a_function_without_a_place_for_the_item_is_refused() -> None:
    """`map_on` needs a parameter."""
    with pytest.raises(InvalidWorkflow, match="has no parameter for the item"):
        root(lambda **kwargs: None, type="parameterized", map_on="city")

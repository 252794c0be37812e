"""How a stage's function takes its arguments: decided once, before anything runs."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from flowtilla.errors import InvalidWorkflow
from flowtilla.workflow import Stage

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Binding:
    """Where a function's arguments come from.

    Args:
        parents: the positions, in `depends_on`, of the parents whose values are its positional arguments.
        item: where the mapped item goes: a position among the positional arguments, or a parameter's name.
        inputs: the parameters taken from the run's input, if it has them; None takes the whole input (`**kwargs`).
        required: those of them that the input must have.
        positional_only: those that must be passed by position, in order.
        item_name: the parameter that the mapped item goes to, which no input may fill as well.
    """

    parents: tuple[int, ...] = ()
    item: int | str | None = None
    inputs: frozenset[str] | None = frozenset()
    required: tuple[str, ...] = ()
    positional_only: tuple[str, ...] = ()
    item_name: str | None = None

    def missing(self, given: Mapping[str, Any]) -> list[str]:
        """Returns the required parameters that an input does not have."""
        return [name for name in self.required if name not in given]

    def positional_inputs(self, given: Mapping[str, Any]) -> list[Any]:
        """Returns the part of an input that is passed by position."""
        present = []
        for name in self.positional_only:
            # A gap ends the list: what follows cannot be passed by position, and has a default.
            if name not in given:
                break
            present.append(given[name])
        return present

    def keyword_inputs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the part of an input that is passed by name."""
        by_position = set(self.positional_only)
        return {
            name: value
            for name, value in given.items()
            if name not in by_position and name != self.item_name and (self.inputs is None or name in self.inputs)
        }


def bind(stage: Stage, function: Callable[..., Any]) -> Binding:
    """Returns how a stage's function takes its arguments.

    Raises:
        InvalidWorkflow: the function cannot take what the stage would give it.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        # Some builtins tell no signature; they take what they are given.
        parameters = [Parameter("args", Parameter.VAR_POSITIONAL)]
    return _bind_root(stage, parameters) if not stage.depends_on else _bind_child(stage, parameters)


def _bind_root(stage: Stage, parameters: list[Parameter]) -> Binding:
    item, others = _item_parameter(stage, parameters)
    named = [parameter for parameter in others if _is_named(parameter)]
    place: int | str | None = None
    if item is not None:
        # Everything else is passed by name, so that the item can come first where it has no name.
        place = item.name if item.kind in _BY_NAME else _before(item, parameters)
    return Binding(
        item=place,
        inputs=None if any(one.kind is Parameter.VAR_KEYWORD for one in others) else frozenset(_names(named)),
        required=tuple(_names(one for one in named if one.default is Parameter.empty)),
        positional_only=tuple(_names(one for one in named if one.kind is Parameter.POSITIONAL_ONLY)),
        item_name=item.name if item is not None else None,
    )


def _bind_child(stage: Stage, parameters: list[Parameter]) -> Binding:
    item, others = _item_parameter(stage, parameters)
    places = [parameter for parameter in others if parameter.kind in _POSITIONAL]
    takes_all = any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in others)
    count = len(stage.depends_on)
    _check_child(stage, others, places, takes_all)
    taken = tuple(range(count if takes_all else min(count, len(places))))
    if item is not None:
        place = _before(item, parameters)
        late = place > len(taken) or item.kind is Parameter.KEYWORD_ONLY
        return Binding(parents=taken, item=item.name if late else place, item_name=item.name)
    if stage.type == "parameterized":
        # The item takes the place of the first parent's value, which it comes from.
        return Binding(parents=taken[1:], item=0)
    return Binding(parents=taken)


def _check_child(stage: Stage, others: list[Parameter], places: list[Parameter], takes_all: bool) -> None:
    parents = ", ".join(stage.depends_on)
    if not places and not takes_all and stage.map_on is None:
        raise InvalidWorkflow(
            f"stage {stage.name!r}: {stage.target} takes no positional arguments, but gets the values of {parents}: "
            "give it a parameter for each value it needs"
        )
    lacking = _names(one for one in places[len(stage.depends_on) :] if one.default is Parameter.empty)
    lacking += _names(one for one in others if one.kind is Parameter.KEYWORD_ONLY and one.default is Parameter.empty)
    if lacking:
        raise InvalidWorkflow(
            f"stage {stage.name!r}: {stage.target} requires {', '.join(lacking)} beyond the {len(stage.depends_on)} "
            f"values of its parents ({parents}): name more parents in depends_on, or give defaults"
        )


def _item_parameter(stage: Stage, parameters: list[Parameter]) -> tuple[Parameter | None, list[Parameter]]:
    """Returns the parameter that `map_on` items go to, the one named like the key or else the first, and the others."""
    if stage.map_on is None:
        return None, parameters
    named = [one for one in parameters if one.name == stage.map_on and _is_named(one)]
    able = [one for one in parameters if one.kind is not Parameter.VAR_KEYWORD]
    if not named and not able:
        raise InvalidWorkflow(
            f"stage {stage.name!r}: {stage.target} has no parameter for the item: "
            f"give it one, named {stage.map_on!r} or first"
        )
    item = (named or able)[0]
    keep = item.kind is Parameter.VAR_POSITIONAL
    return item, [one for one in parameters if one is not item or keep]


def _before(item: Parameter, parameters: list[Parameter]) -> int:
    """Returns how many positional parameters stand before the item's."""
    return sum(one.kind in _POSITIONAL for one in parameters[: parameters.index(item)])


def _is_named(parameter: Parameter) -> bool:
    return parameter.kind in (*_POSITIONAL, Parameter.KEYWORD_ONLY)


def _names(parameters: Iterable[Parameter]) -> list[str]:
    return [parameter.name for parameter in parameters]

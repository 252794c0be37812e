"""The decorator that marks a function as a stage."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

from flowtilla.workflow import Stage, StageOptions

_F = TypeVar("_F", bound=Callable[..., Any])

_MARK = "__flowtilla_stage__"


@overload
def stage(function: _F, /) -> _F: ...
@overload
def stage(**options: Any) -> Callable[[_F], _F]: ...
def stage(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Marks a function as a stage that workers may run, and gives defaults.

    The function stays a plain function: call it in a test as any other.

        @flowtilla.stage(retries=2, timeout="90s")
        def fetch(city): ...

    Args:
        function: the function, when used without parentheses.
        options: the fields of `StageOptions`: resources, retries, timeout, stage_timeout, priority, checkpoint,
            readonly_arguments, allow_partial_failure.

    Raises:
        pydantic.ValidationError: an option is unknown or has a wrong value.
    """
    defaults = StageOptions.model_validate(options)

    def mark(marked: _F) -> _F:
        setattr(marked, _MARK, defaults)
        return marked

    return mark if function is None else mark(function)


def is_stage(function: Any) -> bool:
    """Returns whether the function is marked with `@flowtilla.stage`."""
    return isinstance(getattr(function, _MARK, None), StageOptions)


def options_of(declared: Stage, function: Callable[..., Any]) -> StageOptions:
    """Returns the stage's options: what the workflow declares, else what the decorator gives."""
    defaults = getattr(function, _MARK, StageOptions())
    given = {name: getattr(declared, name) for name in StageOptions.model_fields}
    return StageOptions.model_construct(
        **{name: value if value is not None else getattr(defaults, name) for name, value in given.items()}
    )

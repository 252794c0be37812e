"""A stage's target: a dotted path on the way, a function at both ends."""

import importlib
from collections.abc import Callable
from typing import Any

from flowtilla.errors import TargetError


def import_path(function: Callable[..., Any]) -> str:
    """Returns the dotted path from which a worker can import the function.

    Raises:
        ValueError: it has none (a lambda, a nested or a `__main__` function).
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not name:
        raise ValueError(f"{function!r} has no import path: use a function defined in a module")
    if "<" in name:
        raise ValueError(f"{name} is local to a function, so workers cannot import it: move it to a module's top level")
    if module == "__main__":
        raise ValueError(
            f"{name} lives in the script being run, so workers cannot import it: move it to a module of its own"
        )
    return f"{module}.{name}"


def load(target: str) -> Callable[..., Any]:
    """Returns the function that a dotted path names.

    Only for paths that the worker's configuration allows: importing runs code.

    Raises:
        TargetError: the module or the attribute is missing, importing it fails, or it is not callable.
    """
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise TargetError(
            f"target {target!r}: there is no module {error.name!r} here: install it, or mend the path"
        ) from error
    except AttributeError as error:
        raise TargetError(f"target {target!r}: module {module_name!r} has no {name!r}") from error
    except Exception as error:
        raise TargetError(
            f"target {target!r}: importing {module_name!r} failed: {type(error).__name__}: {error}"
        ) from error
    if not callable(found):
        raise TargetError(f"target {target!r} is a {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function

"""How a stage's function reaches the process that runs it."""

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import cloudpickle


def portable(target: str, function: Callable[..., Any]) -> str | bytes:
    """Returns the function's dotted path, or the function itself where another process would not find it by that.

    Only `run_workflow` meets functions without a path: those of a test module that pytest imported its own way.
    """
    module_name, _, name = target.rpartition(".")
    module = sys.modules.get(module_name)
    if module is None or getattr(module, name, None) is not function or _importable(module):
        return target
    registered = module_name in cloudpickle.list_registry_pickle_by_value()
    if not registered:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(function))
    finally:
        if not registered:
            cloudpickle.unregister_pickle_by_value(module)


def _importable(module: ModuleType) -> bool:
    """Returns whether the import path leads to the module; what `sys.modules` holds proves nothing."""
    file = getattr(module, "__file__", None)
    if file is None:
        return True
    path: list[str] | None = None
    spec: ModuleSpec | None = None
    parts = module.__name__.split(".")
    for length in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:length]), path)
        if spec is None:
            return False
        path = list(spec.submodule_search_locations or ())
    return spec is not None and spec.origin == file

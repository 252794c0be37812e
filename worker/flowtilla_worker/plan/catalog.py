"""The functions a worker may run: what is in Redis is data, so nothing is imported because a message names it."""

import importlib
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from flowtilla.decorator import is_stage
from flowtilla.errors import ConfigurationError, TargetNotAllowed
from flowtilla.targets import load


class Catalog:
    """Resolves stage targets to functions, within what the configuration allows.

    Args:
        modules: modules whose `@flowtilla.stage` functions may run; imported by `load_modules`.
        allowed_targets: patterns (`legacy.jobs.*`) of further dotted paths that may.
    """

    def __init__(self, modules: Sequence[str] = (), allowed_targets: Sequence[str] = ()) -> None:
        self._modules = tuple(modules)
        self._patterns = tuple(allowed_targets)

    def load_modules(self) -> None:
        """Imports the modules, so that a missing one is found at start and not by a run.

        Raises:
            ConfigurationError: one cannot be imported.
        """
        for name in self._modules:
            try:
                importlib.import_module(name)
            except Exception as error:
                raise ConfigurationError(
                    f"services.worker.modules: {name!r} cannot be imported: {type(error).__name__}: {error}. "
                    "Is it installed, or on PYTHONPATH, where the worker runs?"
                ) from error

    def imports(self, target: str) -> bool:
        """Returns whether what a target names is looked for in a module that may not be imported yet."""
        return self._marked(target) is None and self._permits(target)

    def function(self, target: str) -> Callable[..., Any]:
        """Returns the function that a target names.

        Raises:
            TargetNotAllowed: neither setting permits it; nothing was imported.
            TargetError: it is permitted but cannot be resolved.
        """
        if (marked := self._marked(target)) is not None:
            return marked
        if self._permits(target):
            return self._at_home(target, load(target))
        raise TargetNotAllowed(
            f"target {target!r} is not allowed on this worker: it is neither a @flowtilla.stage function of "
            f"services.worker.modules ({_shown(self._modules)}) nor matched by services.worker.allowed_targets "
            f"({_shown(self._patterns)}); add its module or a pattern to the worker's configuration"
        )

    def _permits(self, path: str) -> bool:
        return any(fnmatchcase(path, pattern) for pattern in self._patterns)

    def _at_home(self, target: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Refuses what an allowed module merely imported: `jobs.system` is `os.system` where jobs imports it."""
        home = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
        if target not in self._patterns and not self._permits(home):
            raise TargetNotAllowed(
                f"target {target!r} is really {home}, which no pattern of services.worker.allowed_targets "
                f"({_shown(self._patterns)}) matches; add {target!r} itself if it is meant"
            )
        return function

    def _marked(self, target: str) -> Callable[..., Any] | None:
        module_name, _, name = target.rpartition(".")
        if module_name not in self._modules:
            return None
        found = getattr(sys.modules.get(module_name), name, None)
        return found if is_stage(found) else None


def _shown(settings: Sequence[str]) -> str:
    return ", ".join(settings) or "empty"

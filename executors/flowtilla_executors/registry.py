"""Executors by name: a table of short names, imported on use."""

import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from flowtilla.errors import ConfigurationError
from flowtilla.problems import describe, suggest
from flowtilla.settings import ExecutorSettings
from flowtilla_executors.base import Executor


@dataclass(frozen=True, slots=True)
class Entry:
    """One executor of ours.

    Args:
        path: where its class is, as `module:Class`.
        needs: the module that must be installed for it, beside flowtilla itself.
        install: what to type when it is not.
    """

    path: str
    needs: str | None = None
    install: str = "pip install flowtilla"

    @property
    def installed(self) -> bool:
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


#: The executors by short name, the one to take by default first: it is the first that is installed.
EXECUTORS: Mapping[str, Entry] = MappingProxyType(
    {
        "ray": Entry("flowtilla_executors.ray:RayExecutor", "ray", 'pip install "flowtilla[ray]"'),
        "local": Entry("flowtilla_executors.local:LocalExecutor"),
        "dask": Entry("flowtilla_executors.dask:DaskExecutor", "distributed", 'pip install "flowtilla[dask]"'),
    }
)

#: Names that other systems' configuration files use.
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "flowdapt.compute.executor.ray.RayExecutor": "ray",
        "flowdapt.compute.executor.local.LocalExecutor": "local",
        "flowdapt.compute.executor.dask.DaskExecutor": "dask",
    }
)


def create(settings: ExecutorSettings) -> Executor[Any]:
    """Returns the executor that the settings ask for, not yet started.

    Args:
        settings: its `target`, a short name or the dotted path of a class, and its options; without a target, the
            first of the table that is installed.

    Raises:
        ConfigurationError: there is no such executor, it is not installed, or an option is wrong.
    """
    target = settings.target or default()
    name = ALIASES.get(target, target)
    kind = _load(name)
    return kind(**_options(kind, settings.options, name))


def default() -> str:
    """Returns the short name of the executor to take where none is named."""
    return next(name for name, entry in EXECUTORS.items() if entry.installed)


def _load(name: str) -> type[Executor[Any]]:
    entry = EXECUTORS.get(name)
    if entry is None and "." not in name:
        known = suggest(name, list(EXECUTORS))
        raise ConfigurationError(f"there is no executor {name!r}{known}; or give the dotted path of a class")
    module, _, attribute = (entry.path if entry else ":".join(name.rsplit(".", 1))).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        advice = entry.install if entry else "install it, or mend the path"
        raise ConfigurationError(f"the executor {name!r} cannot be imported: {error}; {advice}") from error
    if not (isinstance(found, type) and issubclass(found, Executor)):
        raise ConfigurationError(f"the executor {name!r} is not a subclass of flowtilla_executors.Executor")
    return found


def _options(kind: type[Executor[Any]], options: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the options as the constructor's annotations want them: an environment variable is only text."""
    parameters = inspect.signature(kind).parameters.values()
    hints = get_type_hints(kind.__init__, include_extras=True)
    named = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    fields: dict[str, Any] = {
        each.name: (hints.get(each.name, Any), ... if each.default is each.empty else each.default) for each in named
    }
    config = ConfigDict(extra="allow" if takes_any else "forbid", arbitrary_types_allowed=True)
    try:
        read = create_model("Options", __config__=config, **fields).model_validate(options)
    except ValidationError as error:
        raise ConfigurationError(describe(error, f"the executor {name!r}", {(): list(fields)})) from error
    return {key: getattr(read, key) for key in options}

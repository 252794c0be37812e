"""Makes sure that a cluster can run what this process will send it."""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowtilla.errors import ClusterMismatch

#: What must be the same on both sides, beside the back end's own library; of Python, only `3.11` of `3.11.7`.
PACKAGES = ("flowtilla", "cloudpickle")


def look(packages: Sequence[str], modules: Sequence[str]) -> dict[str, Any]:
    """Returns what there is where this runs.

    It uses nothing but Python's own library and travels by value: on the other side flowtilla may be missing.

    Args:
        packages: distributions whose versions to report.
        modules: modules to import.

    Returns:
        `host`; `versions` by package, None for one that is missing; `broken`: why a module cannot be imported, by name.
    """
    import importlib
    import importlib.metadata
    import platform

    versions: dict[str, str | None] = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    broken = {}
    for module in modules:
        try:
            importlib.import_module(module)
        except BaseException as error:
            broken[module] = f"{type(error).__name__}: {error}"
    return {"host": platform.node(), "versions": versions, "broken": broken}


def portable_look() -> Callable[..., dict[str, Any]]:
    """Returns `look` as a function that pickles travel with, rather than with its name."""
    return types.FunctionType(look.__code__, {"__name__": "__main__", "__builtins__": __builtins__}, "look")


def check(found: Mapping[str, Any], packages: Sequence[str], cluster: str) -> None:
    """Compares what a node has with what this process has.

    Args:
        found: what `look` returned there.
        packages: the distributions to compare.
        cluster: how messages call the cluster, such as `the Ray cluster at 10.0.0.5:6379`.

    Raises:
        ClusterMismatch: something differs or is missing; the message says all of it.
    """
    here, there = look(packages, ())["versions"], found["versions"]
    differing = [
        f"{name} {there.get(name) or 'is missing'} there and {version} here"
        for name, version in here.items()
        if there.get(name) != version
    ]
    if differing:
        raise ClusterMismatch(
            f"{cluster}, host {found['host']}, is not like this worker: {'; '.join(differing)}. "
            "Install the same versions on both sides"
        )
    if found["broken"]:
        why = "; ".join(f"{module} ({error})" for module, error in found["broken"].items())
        raise ClusterMismatch(
            f"{cluster}, host {found['host']}, cannot import modules of the configuration's `modules`: {why}. "
            "Install them there, or ship them: see docs/executors.md"
        )

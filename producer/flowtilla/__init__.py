"""flowtilla: push workflow jobs from any service, run each as a DAG of Python stages on a fleet of workers.

import flowtilla

client = flowtilla.Client("redis://localhost:6379/0")
run = client.submit("workflow.yaml", input={"n": 5})
print(run.result(timeout=60))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flowtilla.context import Context, context

if TYPE_CHECKING:
    import flowtilla.artifacts as artifacts
    import flowtilla.errors as errors
    import flowtilla.objects as objects
    from flowtilla.aio import AsyncClient, AsyncRun
    from flowtilla.client import Client
    from flowtilla.decorator import stage
    from flowtilla.logs import LogLine
    from flowtilla.run import Run
    from flowtilla.states import RunState, StageState
    from flowtilla.workflow import Resources, Retries, Stage, Workflow

__version__ = "0.1.0"

# Imported when first used: a stage's process needs no Redis client, and a service no more than it uses.
_LAZY = {
    "AsyncClient": "flowtilla.aio",
    "AsyncRun": "flowtilla.aio",
    "Client": "flowtilla.client",
    "LogLine": "flowtilla.logs",
    "Resources": "flowtilla.workflow",
    "Retries": "flowtilla.workflow",
    "Run": "flowtilla.run",
    "RunState": "flowtilla.states",
    "Stage": "flowtilla.workflow",
    "StageState": "flowtilla.states",
    "Workflow": "flowtilla.workflow",
    "stage": "flowtilla.decorator",
}

_LAZY_MODULES = ("artifacts", "errors", "objects")

__all__ = [
    "AsyncClient",
    "AsyncRun",
    "Client",
    "Context",
    "LogLine",
    "Resources",
    "Retries",
    "Run",
    "RunState",
    "Stage",
    "StageState",
    "Workflow",
    "artifacts",
    "context",
    "errors",
    "objects",
    "stage",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return import_module(f"flowtilla.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'flowtilla' has no attribute {name!r}")
    globals()[name] = getattr(import_module(_LAZY[name]), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

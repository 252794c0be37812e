"""What a call needs, in Dask's words: a thread of a worker process, and amounts of that worker's resources."""

from collections.abc import Mapping, Sequence
from typing import Any

from flowtilla.errors import ResourcesUnavailable
from flowtilla_executors.call import Call
from flowtilla_executors.resources import Amounts, check

#: The resources of Dask workers that count cpus, devices and bytes; `dask worker --resources "CPU=4,GPU=1"`.
CPU, GPU, MEMORY = "CPU", "GPU", "MEMORY"
COUNTED = frozenset({CPU, GPU, MEMORY})

_HINT = (
    "Dask counts inside one worker process, where a call takes one thread: for more cpus set `threads`, or on your own "
    'cluster start workers with `--resources "CPU=4"`'
)


def offered(worker: Mapping[str, Any]) -> dict[str, float]:
    """Returns what a worker process has for one call, from what the scheduler says of it."""
    resources = dict(worker["resources"])
    offer = {
        # Of threads a call takes one, whatever it asks for; only the resource counts more.
        "cpus": resources.pop(CPU, 1.0),
        "gpus": resources.pop(GPU, 0.0),
        "memory": resources.pop(MEMORY, worker.get("memory_limit") or float("inf")),
    }
    return {**{name: amount for name, amount in offer.items() if amount}, **resources}


def demanded(call: Call, counted: frozenset[str], nodes: Sequence[Amounts] | None) -> dict[str, float]:
    """Returns the resources to ask Dask for.

    Args:
        call: what is to run.
        counted: which of `CPU` and `MEMORY` workers have as resources.
        nodes: what each worker has, as `offered` says; None when one may come that has more.

    Raises:
        ResourcesUnavailable: no worker could ever meet it.
    """
    cpus = 1.0 if call.cpus is None else call.cpus
    if nodes is not None:
        need = {"cpus": cpus, "gpus": call.gpus or 0.0, "memory": float(call.memory or 0), **call.resources}
        try:
            check(call.context.stage, {k: v for k, v in need.items() if v}, "dask", nodes)
        except ResourcesUnavailable as error:
            raise ResourcesUnavailable(f"{error}. {_HINT}") from None
    asked = {CPU: cpus if CPU in counted else 0.0, MEMORY: float(call.memory or 0) if MEMORY in counted else 0.0}
    asked |= {GPU: call.gpus or 0.0, **call.resources}
    return {name: amount for name, amount in asked.items() if amount}

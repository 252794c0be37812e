"""What a call needs, in Dask's words: a thread of a worker process, and amounts of that worker's resources."""

from collections.abc import Collection, Mapping
from typing import Any

from flowtilla.errors import ResourcesUnavailable
from flowtilla_executors.call import Call
from flowtilla_executors.resources import Offers

#: The resources of Dask workers that count cpus, devices and bytes; `dask worker --resources "CPU=4,GPU=1"`.
CPU, GPU, MEMORY = "CPU", "GPU", "MEMORY"
COUNTED = frozenset({CPU, GPU, MEMORY})
_DASK = {"cpus": CPU, "gpus": GPU, "memory": MEMORY}

_HINT = (
    "Dask counts inside one worker process, where a call takes one thread: for more cpus set `threads`, or on your own "
    'cluster start workers with `--resources "CPU=4"`'
)


def offered(worker: Mapping[str, Any], counted: Collection[str]) -> dict[str, float]:
    """Returns what a worker process has for one call.

    Args:
        worker: what the scheduler says of it.
        counted: the resources that workers have: calls ask for those, and one that lacks them gets no such call.
    """
    resources = dict(worker["resources"])
    offer = {
        # Of threads a call takes one, whatever it asks for; only the resource counts more.
        "cpus": resources.pop(CPU, 0.0 if CPU in counted else 1.0),
        "gpus": resources.pop(GPU, 0.0),
        "memory": resources.pop(MEMORY, 0.0 if MEMORY in counted else worker.get("memory_limit") or float("inf")),
    }
    return {**{name: amount for name, amount in offer.items() if amount}, **resources}


def needed(call: Call) -> dict[str, float]:
    """Returns what a call needs, by name, without the zeros."""
    cpus = 1.0 if call.cpus is None else call.cpus
    need = {"cpus": cpus, "gpus": call.gpus or 0.0, "memory": float(call.memory or 0), **call.resources}
    return {name: amount for name, amount in need.items() if amount}


def met(call: Call, offers: Offers) -> bool:
    """Returns whether a worker that is up could meet what a call needs; if not, one that was could.

    Raises:
        ResourcesUnavailable: no worker ever could.
    """
    try:
        return offers.meet(call.context.stage, needed(call), "dask")
    except ResourcesUnavailable as error:
        raise ResourcesUnavailable(f"{error}. {_HINT}") from None


def demanded(call: Call, counted: Collection[str]) -> dict[str, float]:
    """Returns the resources to ask Dask for.

    Args:
        call: what is to run.
        counted: the resources that workers have.
    """
    need = {_DASK.get(name, name): amount for name, amount in needed(call).items()}
    # A worker that does not count cpus or memory gives them to nobody.
    return {name: amount for name, amount in need.items() if name in counted or name not in (CPU, MEMORY)}

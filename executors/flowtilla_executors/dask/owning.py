"""Whether anybody but the executor still holds a value: if nobody does, its memory need not be copied to be kept."""

import mmap
import sys
import weakref
from functools import cache
from typing import Any

from flowtilla.context import Context
from flowtilla_executors.call import Call
from flowtilla_executors.invoke import invoke
from flowtilla_executors.values import Same

#: What the memory of an array may belong to.
_OWNERS = (memoryview, mmap.mmap, bytearray)


def alone(value: Any, references: int) -> bool:
    """Returns whether a value is an array that nobody else can change.

    Args:
        value: what a stage returned.
        references: what `sys.getrefcount` says of it in a function that `invoke` was given as `keep`.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or references > _machinery() or weakref.getweakrefcount(value):
        return False
    link = value.base
    while link is not None:
        # Here, as `getrefcount`'s argument, and below the last link.
        if sys.getrefcount(link) > 3 or type(link) not in (numpy.ndarray, *_OWNERS):
            return False
        link = link.obj if type(link) is memoryview else getattr(link, "base", None)
    return True


@cache
def _machinery() -> int:
    """Returns how many references `invoke` itself holds to a value while it is kept."""
    seen = []

    def keep(value: Any) -> Same:
        seen.append(sys.getrefcount(value))
        return Same(None)

    context = Context(run_id="", namespace="", workflow="", stage="", attempt=0, executor="dask")
    invoke(Call("builtins.object", context), (), keep)
    return seen[0]

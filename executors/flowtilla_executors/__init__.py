"""Compute back ends behind one seam: Local here, Ray and Dask beside it, the user's own by dotted path."""

from flowtilla_executors.base import Executor, ExecutorInfo, LogSink
from flowtilla_executors.call import Argument, Call, Items, Joined, Literal, Parent
from flowtilla_executors.outcome import MISSING, Failure, Outcome

__all__ = [
    "MISSING",
    "Argument",
    "Call",
    "Executor",
    "ExecutorInfo",
    "Failure",
    "Items",
    "Joined",
    "Literal",
    "LogSink",
    "Outcome",
    "Parent",
]

"""Runs one call, in whatever process or thread an executor gives a stage; the same on every executor."""

import asyncio
import inspect
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from flowtilla import targets
from flowtilla.cancellation import Cancellation
from flowtilla.context import Context, entered
from flowtilla.errors import ValueNotStorable
from flowtilla.logs import LogLine
from flowtilla_executors import describe
from flowtilla_executors.call import Argument, Call, Items, Joined, Literal, Parent
from flowtilla_executors.capture import recording
from flowtilla_executors.outcome import Failure, Outcome, class_name
from flowtilla_executors.recorder import Recorder, host
from flowtilla_executors.values import IMMUTABLE, Listed, Snapshot, Uncomputed, fresh, snapshot

Kept = TypeVar("Kept")

#: Frames of these folders, where a traceback begins, are the machinery and not the stage.
_MACHINERY = (str(Path(__file__).parent), str(Path(asyncio.__file__).parent))


def invoke(
    call: Call,
    parents: Sequence[Snapshot],
    keep: Callable[[Any], Kept],
    emit: Callable[[Sequence[LogLine]], None] | None = None,
    cancellation: Cancellation | None = None,
) -> tuple[Kept | None, Outcome]:
    """Runs a call to its end, however it ends.

    Args:
        call: what to run.
        parents: what the call's arguments refer to; each use of a parent takes a fresh copy, but for the big buffers
            of a call that is `readonly`.
        keep: pickles the value, or otherwise makes it the executor's; what it raises fails the call.
        emit: takes log lines while the call runs, from any thread.
        cancellation: asks the stage to stop; None when nobody will.

    Returns:
        What `keep` returned (None when the call failed), and how the call ended.
    """
    started = time.time()
    staged: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    kept = None
    with recording(call.context, emit) as recorder:
        try:
            run = _Run(call, parents, recorder, staged, cancellation or Cancellation())
            value = run.once() if call.items is None else run.map(call.items)
            kept = _checked(keep, value, call.context)
            found = {
                "item_failures": tuple(run.failures),
                "busy": run.busy,
                "value": describe.inline(value, call.inline),
                "size": getattr(kept, "size", None),
                "length": describe.length(value),
                "iterable": describe.iterable(value),
                "kind": class_name(type(value)),
            }
        # SystemExit and KeyboardInterrupt too: a stage must not end the process it was lent.
        except BaseException as error:
            found["failure"] = _failure(error)
    logs, artifacts = recorder.take(), tuple(staged)
    outcome = Outcome(started, time.time(), host(), os.getpid(), logs=logs, artifacts=artifacts, **found)
    return (None if outcome.failure else kept), outcome


@dataclass(slots=True)
class _Run:
    """The function of a call, applied once or to every item."""

    call: Call
    parents: Sequence[Snapshot]
    recorder: Recorder
    staged: list[dict[str, Any]]
    cancellation: Cancellation
    failures: list[tuple[int, Failure]] = field(default_factory=list)
    busy: float = 0.0

    def once(self) -> Any:
        function = _function(self.call.target)
        arguments = [source() for source in self._arguments()]
        return self._apply(function, arguments, self._keywords()(), None, self.staged)

    def map(self, items: Items) -> list[Any]:
        """Returns the results of the items that succeeded, in order."""
        function, arguments, keywords = _function(self.call.target), self._arguments(), self._keywords()
        results = []
        for position, item in enumerate(self._window(items)):
            if self.cancellation.requested:
                raise asyncio.CancelledError("the call was stopped between two items")
            index = items.start + position if items.indexes is None else items.indexes[position]
            staged: list[dict[str, Any]] = []
            try:
                args, kwargs = _placed(
                    fresh(item, self.call.readonly), items.place, [source() for source in arguments], keywords()
                )
                result = self._apply(function, args, kwargs, index, staged)
                # At once, since the next item may change what this one returned.
                results.append(_checked(fresh, result, self.call.context))
                self.staged += staged
            except BaseException as error:
                self.failures.append((index, _failure(error)))
        return results

    def _apply(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        item: int | None,
        staged: list[dict[str, Any]],
    ) -> Any:
        call, cancellation = self.call, self.cancellation
        with entered(call.context, item=item, timeout=call.timeout, _staged=staged, _cancellation=cancellation):
            begun = time.perf_counter()
            try:
                return _drained(function(*args, **kwargs))
            finally:
                self.busy += time.perf_counter() - begun
                cancellation.forget()
                self.recorder.end_lines()

    def _arguments(self) -> list[Callable[[], Any]]:
        return [self._source(argument) for argument in self.call.args]

    def _source(self, argument: Argument) -> Callable[[], Any]:
        if isinstance(argument, Literal):
            return snapshot(argument.value).load
        if isinstance(argument, Joined):
            parts = [self.parents[index] for index in argument.indexes]
            return lambda: list(chain.from_iterable(part.load(self.call.readonly) for part in parts))
        return partial(self.parents[argument.index].load, self.call.readonly)

    def _keywords(self) -> Callable[[], Any]:
        return snapshot(self.call.kwargs).load if self.call.kwargs else dict

    def _window(self, items: Items) -> Iterator[Any]:
        if isinstance(items.source, Parent) and isinstance(parent := self.parents[items.source.index], Listed):
            return parent.window(items.start, items.stop, self.call.readonly)
        source = self._source(items.source)()
        try:
            found = iter(source)
        except TypeError:
            raise TypeError(
                f"stage {self.call.context.stage!r} maps over a value of class {class_name(type(source))}, which is "
                "not iterable: give it a list, or another iterable"
            ) from None
        return islice(found, items.start, items.stop)


def _placed(
    item: Any, place: int | str, args: list[Any], kwargs: dict[str, Any]
) -> tuple[Sequence[Any], dict[str, Any]]:
    if isinstance(place, str):
        return args, {**kwargs, place: item}
    return [*args[:place], item, *args[place:]], kwargs


def _drained(result: Any) -> Any:
    """Returns what a function really computes: awaits a coroutine, makes a list of what is read only once."""
    if type(result) in IMMUTABLE:
        return result
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    if inspect.isasyncgen(result):
        return asyncio.run(_listed(result))
    return list(result) if isinstance(result, Iterator) else result


async def _listed(generator: Any) -> list[Any]:
    return [item async for item in generator]


def _checked(keep: Callable[[Any], Kept], value: Any, context: Context) -> Kept:
    try:
        return keep(value)
    except Uncomputed as late:
        raise late.error from None
    except Exception as error:
        raise ValueNotStorable(
            f"stage {context.stage!r} returned a value of class {class_name(type(value))} that cannot leave its "
            f"process ({class_name(type(error))}: {error}): return plain data, an array or a table, or store it as an "
            "artifact and return its name"
        ) from error


@lru_cache(maxsize=1024)
def _function(target: str | bytes) -> Callable[..., Any]:
    function: Callable[..., Any] = targets.load(target) if isinstance(target, str) else pickle.loads(target)
    return function


def _failure(error: BaseException) -> Failure:
    """Returns the exception as data; its traceback begins at the stage's own code."""
    frames: TracebackType | None = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_MACHINERY):
        frames = frames.tb_next
    return Failure.of(error.with_traceback(frames))

"""The bench the executors' conformance suite uses."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from backends import Backend, Started
from flowtilla.context import Context
from flowtilla.targets import import_path
from flowtilla_executors import Call, Executor, Items, Joined, Literal, Outcome, Parent
from flowtilla_worker.testing.loop import on_loop

PATIENCE = 60.0


@dataclass
class Bench:
    """An executor that runs, and the shortest words to use it."""

    executor: Executor[Any]
    lines: list[Any] = field(default_factory=list)

    def start(self) -> None:
        self.run(self.executor.start(self.lines.extend))

    def close(self) -> None:
        self.run(self.executor.close())

    def run(self, work: Any) -> Any:
        async def within() -> Any:
            async with asyncio.timeout(PATIENCE):
                return await work

        return on_loop(within())

    def submit(self, call: Call, *parents: Any) -> Any:
        async def begin() -> Any:  # in the loop, where the engine submits
            return self.executor.submit(call, parents)

        return self.run(begin())

    def submit_all(self, *calls: tuple[Any, ...]) -> list[Any]:
        """Submits calls, each given with the places of its parents, in one turn of the loop, as the engine does."""

        async def begin() -> list[Any]:
            handles: list[Any] = []
            for call, *parents in calls:
                handles.append(self.executor.submit(call, [handles[parent] for parent in parents]))
            return handles

        return self.run(begin())

    def outcome(self, handle: Any) -> Outcome:
        return self.run(self.executor.outcome(handle))

    def finished(self, call: Call, *parents: Any) -> Any:
        """Submits a call and returns its handle once it succeeded."""
        handle = self.submit(call, *parents)
        outcome = self.outcome(handle)
        assert outcome.failure is None, outcome.failure.traceback
        return handle

    def result(self, call: Call, *parents: Any) -> Outcome:
        return self.outcome(self.submit(call, *parents))

    def value(self, call: Call, *parents: Any) -> Any:
        return self.fetch(self.finished(call, *parents))

    def fetch(self, handle: Any) -> Any:
        return self.run(self.executor.fetch(handle))

    def cancel(self, handle: Any) -> None:
        self.run(self.executor.cancel(handle))

    def until(self, true: Callable[[], Any], why: str) -> None:
        """Lets the loop run until a condition holds."""

        async def wait() -> None:
            end = time.monotonic() + PATIENCE
            while not true():
                assert time.monotonic() < end, why
                await asyncio.sleep(0.01)

        self.run(wait())


def context(stage: str = "stage", **fields: Any) -> Context:
    given = {"run_id": "run1", "namespace": "space", "workflow": "flow", "attempt": 1, "executor": "local"}
    return Context(stage=stage, **(given | fields))


def call(function: Callable[..., Any], *args: Any, **options: Any) -> Call:
    """Returns a call; arguments that are not `Parent` or `Joined` are plain values."""
    wrapped = tuple(arg if isinstance(arg, (Parent, Joined)) else Literal(arg) for arg in args)
    return Call(import_path(function), options.pop("context", context()), wrapped, **options)


def over(values: Any, **options: Any) -> Items:
    return Items(values if isinstance(values, (Parent, Joined)) else Literal(values), **options)


@contextmanager
def making(backend: Backend) -> Iterator[Callable[..., Bench]]:
    """Gives what makes and starts executors; all are closed at the end."""
    made = []

    def make(**options: Any) -> Bench:
        made.append(Bench(backend.make(**options)))
        made[-1].start()
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def fresh(backend: Backend) -> Iterator[Callable[..., Bench]]:
    """Makes executors of a test's own."""
    with making(backend) as make:
        yield make


@pytest.fixture
def executor(started: Started) -> Iterator[Bench]:
    """The executor that all tests share."""
    bench = Bench(started.executor())
    bench.start()
    yield bench
    bench.close()


@pytest.fixture
def isolated(executor: Bench, backend: Backend) -> Bench:
    """The same, where stages have processes of their own."""
    if not backend.isolates:
        pytest.skip("its stages share the worker's process")
    return executor

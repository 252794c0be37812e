"""Stages whose answers are known beforehand. They leave marks in a file of their run when they begin and end."""

import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flowtilla


class Planned(Exception):
    """What fails as planned raises this."""


def marked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function a stage that leaves marks, and takes the time its run's input says."""

    @flowtilla.stage
    @functools.wraps(function)
    def stage(*args: Any, **kwargs: Any) -> Any:
        context = flowtilla.context()
        print(f"{context.stage} of attempt {context.attempt}")
        _mark("begin")
        time.sleep(context.input.get("pause", 0))
        value = function(*args, **kwargs)
        _mark("end")
        return value

    return stage


def _mark(event: str) -> None:
    context = flowtilla.context()
    fields = (event, context.stage, context.item, context.attempt, time.time(), os.getpid())
    # One write at the end of the file: marks of processes that run at the same time do not mix.
    mark = os.open(_marks(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(mark, json.dumps(fields).encode() + b"\n")
    finally:
        os.close(mark)


def _marks() -> Path:
    context = flowtilla.context()
    return Path(context.input["folder"], context.run_id)


def _begun() -> int:
    """Returns how often this stage has begun, this time included."""
    marks = (json.loads(line) for line in _marks().read_text().splitlines())
    return sum(mark[:2] == ["begin", flowtilla.context().stage] for mark in marks)


@marked
def start(x: int) -> int:
    """Returns what it is given."""
    return x


@marked
def add(x: int) -> int:
    """One more."""
    return x + 1


@marked
def double(x: int) -> int:
    """Twice."""
    return 2 * x


@marked
def triple(x: int) -> int:
    """Three times."""
    return 3 * x


@marked
def total(*numbers: int) -> int:
    """The sum of its arguments."""
    return sum(numbers)


@marked
def numbers(x: int) -> list[int]:
    """So many numbers."""
    return list(range(x))


@marked
def square(x: int) -> int:
    """For each item."""
    return x * x


@marked
def square_of_even(x: int) -> int:
    """Fails for every odd item."""
    if x % 2:
        raise Planned(f"{x} is odd")
    return x * x


@marked
def total_of(items: Sequence[int]) -> int:
    """The sum of a list."""
    return sum(items)


@marked
def fails(x: int) -> int:
    """Raises."""
    raise Planned(f"given {x}")


@marked
def fails_at(x: int) -> int:
    """Raises for one item."""
    if x == flowtilla.context().input["bad"]:
        raise Planned(f"item {x}")
    return x


@marked
def flaky(x: int) -> int:
    """Raises the first two times."""
    if _begun() <= 2:
        raise Planned("try again")
    return x


@marked
def mended(x: int) -> int:
    """Raises until somebody has mended what it needs."""
    if not _marks().with_suffix(".mended").exists():
        raise Planned("not mended yet")
    return x


@marked
def sleeps(x: int) -> int:
    """Takes longer than it may."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not flowtilla.context().cancelled:
        time.sleep(0.05)
    return x


@marked
def stores(x: int) -> int:
    """Stores an artifact of the run, and one that runs share, each with who stored it."""
    context = flowtilla.context()
    who = {"run": context.run_id, "attempt": context.attempt}
    flowtilla.artifacts.put(context.run_id, who)
    flowtilla.artifacts.put(f"shared-{x % 5}", who)
    return x


@marked
def pair(x: int) -> tuple[int, int]:
    """Returns what JSON cannot hold exactly."""
    return x, x + 1


@marked
def total_of_pair(numbers: tuple[int, int]) -> int:
    """The sum of a tuple, which must be one."""
    assert isinstance(numbers, tuple), type(numbers)
    return sum(numbers)


@marked
def large(x: int) -> list[int]:
    """Returns more than fits into Redis."""
    return list(range(x, x + 20_000))


@marked
def dies(x: int) -> int:
    """Takes down the process it runs in."""
    os._exit(9)

"""What the tests of a workflow's meaning share: short forms, stages."""

from collections.abc import Callable
from typing import Any

from flowtilla import Stage


def stage(name: str, target: Callable[..., Any], *parents: str, **options: Any) -> Stage:
    """Returns a simple stage."""
    return Stage(name=name, target=target, depends_on=parents, **options)


def mapped(name: str, target: Callable[..., Any], *parents: str, **options: Any) -> Stage:
    """Returns a parameterized stage."""
    return stage(name, target, *parents, type="parameterized", **options)


def one() -> int:
    return 1


def echo(x: Any) -> Any:
    return x


def add(a: int, b: int) -> int:
    return a + b


def numbers(n: int = 5) -> list[int]:
    return list(range(n))


def square(x: int) -> int:
    return x * x


def total(xs: list[int]) -> int:
    return sum(xs)


def listed(xs: Any) -> list[Any]:
    return list(xs)


def fail(*_: Any) -> None:
    raise LookupError("no such city")


def fail_on_odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x

"""Stages that the tests' worker processes run. They meet the test through files in a folder."""

import ctypes
import os
import time
from pathlib import Path

import flowtilla


@flowtilla.stage
def nothing() -> None:
    """Does nothing."""


@flowtilla.stage
def echo(x: object = None) -> object:
    """Returns what it is given."""
    return x


@flowtilla.stage
def mark(folder: str, name: str = "mark") -> str:
    """Leaves a file that says it ran, once more each time, and in which process."""
    with Path(folder, name).open("a") as file:
        file.write(f"{os.getpid()} {flowtilla.context().run_id}\n")
    return folder


@flowtilla.stage
def gate(folder: str) -> str:
    """Says that it has begun, and waits until the test opens the gate."""
    context = flowtilla.context()
    print(f"attempt {context.attempt} waits at the gate")
    Path(folder, f"begun-{context.attempt}").touch()
    deadline = time.monotonic() + 60
    while not Path(folder, "open").exists() and not context.cancelled:
        assert time.monotonic() < deadline, "nobody opened the gate"
        time.sleep(0.02)
    return folder


@flowtilla.stage
def fails(message: str = "as planned") -> None:
    """Raises."""
    raise ValueError(message)


@flowtilla.stage
def complains() -> None:
    """Prints which attempt it is, and raises."""
    print(f"attempt {flowtilla.context().attempt} complains")
    raise ValueError("as planned")


@flowtilla.stage
def dies() -> None:
    """Takes its worker down with it, when it runs in the worker's own process."""
    os._exit(9)


@flowtilla.stage
def stores(x: int) -> int:
    """Stores an artifact and prints."""
    print(f"storing {x}")
    flowtilla.artifacts.put("number", {"x": x})
    return x


@flowtilla.stage
def large(_: object = None) -> list[int]:
    """Returns more than fits into Redis."""
    return list(range(100_000))


@flowtilla.stage
def mark_and_pair(folder: str) -> tuple[str, int]:
    """Leaves a mark, and returns what JSON cannot hold exactly."""
    return mark(folder), 1


@flowtilla.stage
def gate_of_pair(pair: tuple[str, int]) -> list[object]:
    """Waits at the gate; then returns the class and the content of what it was given."""
    gate(pair[0])
    return [type(pair).__name__, *pair]


@flowtilla.stage
def double(x: int) -> int:
    """Twice."""
    return 2 * x


@flowtilla.stage
def gate_of_list(xs: list[int], folder: str) -> int:
    """Waits at the gate; then returns the sum."""
    gate(folder)
    return sum(xs)


@flowtilla.stage
def chatty_gate(folder: str) -> str:
    """Prints more lines than Redis keeps, and waits at the gate."""
    for number in range(12_000):
        print(f"line {number}")
    return gate(folder)


@flowtilla.stage
def gate_that_stores(folder: str) -> list[int]:
    """Waits at the gate; then prints, stores an artifact, and returns more than fits into Redis."""
    gate(folder)
    attempt = flowtilla.context().attempt
    print(f"attempt {attempt} is through")
    flowtilla.artifacts.put("from", {"attempt": attempt})
    return [attempt] * 100_000


@flowtilla.stage
def gate_of_item(folder: str) -> str:
    """Waits at the gate, for each item."""
    return gate(folder)


@flowtilla.stage
def stubborn(folder: str) -> str:
    """Says that it has begun, and waits until the test opens the gate, whoever asks it to stop."""
    Path(folder, f"begun-{flowtilla.context().attempt}").touch()
    while not Path(folder, "open").exists():
        time.sleep(0.02)
    return folder


@flowtilla.stage
def open_and_close(folder: str) -> None:
    """Writes into the file `opened` of a folder when it begins and when it ends, a moment later."""
    with Path(folder, "opened").open("a", buffering=1) as file:
        print("open", file=file)
        time.sleep(0.05)
        print("close", file=file)


@flowtilla.stage
def seizes(folder: str) -> None:
    """Once the test opens the gate, lets nothing else of its process run for a minute."""
    gate(folder)
    Path(folder, "seized").touch()
    ctypes.PyDLL(None).sleep(60)


@flowtilla.stage
def holds(folder: str, seconds: int) -> int:
    """Says that it has begun, and lets nothing else of its process run for so many seconds."""
    Path(folder, f"begun-{flowtilla.context().attempt}").touch()
    ctypes.PyDLL(None).sleep(seconds)
    return seconds


@flowtilla.stage
def forks_and_holds(folder: str, seconds: int) -> None:
    """Leaves a process that has all open that its worker has, says which in a file, and holds the interpreter."""
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    Path(folder, "child").write_text(str(child))
    holds(folder, seconds)

"""Stages that tests cancel. Each tells in a file which process runs it, and that it has left."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import flowtilla


@contextlib.contextmanager
def _seen(file: Path) -> Iterator[None]:
    file.write_text(f"{os.getpid()} ")
    try:
        yield
    finally:
        with file.open("a") as out:
            out.write("left")


@flowtilla.stage
def tidies(folder: str) -> None:
    """Looks whether it is to stop, and takes a moment to end."""
    context = flowtilla.context()
    with _seen(Path(folder, "tidies")):
        context.on_cancel(lambda: print("clean-up of the stage"))
        print("waits")
        while not context.cancelled:
            time.sleep(0.01)
        time.sleep(0.5)
        Path(folder, "tidied").touch()


@flowtilla.stage
def ignores(folder: str) -> None:
    """Never looks."""
    with _seen(Path(folder, "ignores")):
        while True:
            time.sleep(0.01)


@flowtilla.stage
def item(x: int, folder: str) -> None:
    """One of many that never look."""
    with _seen(Path(folder, f"item{x}")):
        while True:
            time.sleep(0.01)


@flowtilla.stage
def deaf(folder: str) -> None:
    """Is for long in code that nothing interrupts."""
    with _seen(Path(folder, "deaf")):
        time.sleep(9)

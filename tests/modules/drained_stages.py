"""Stages of the runs that workers have in hand when they are told to stop."""

import time
from pathlib import Path

import flowtilla


@flowtilla.stage
def leaves(naps: list[float]) -> list[float]:
    """Leaves a line that says in which attempt it ran."""
    _leave("left")
    return naps


@flowtilla.stage
def naps(seconds: list[float]) -> int:
    """Takes as many seconds as are given for the attempt, whoever asks it to stop."""
    attempt = flowtilla.context().attempt
    time.sleep(seconds[attempt - 1] if attempt <= len(seconds) else 0.1)
    return len(seconds)


@flowtilla.stage
def goes(count: int) -> int:
    """Leaves another such line."""
    _leave("gone")
    return count


def _leave(name: str) -> None:
    context = flowtilla.context()
    with Path(context.input["folder"], name).open("a") as file:
        file.write(f"{context.run_id} {context.attempt}\n")

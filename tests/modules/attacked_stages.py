"""A module that a worker lists: what is marked here may run, and nothing else."""

import os
import time
from os import mkdir, system
from pathlib import Path

import flowtilla

#: Where a call of what may not run leaves its mark.
ATTACKED = os.environ.get("ATTACKED", "")


@flowtilla.stage
def plus(x: int = 0) -> int:
    """Adds one, says so, and stores it."""
    print(f"{x} and one")
    flowtilla.artifacts.put("honest", {"x": x})
    return int(x) + 1


@flowtilla.stage
def slow(x: object = 1) -> object:
    """Takes its time, so that things happen to its run meanwhile."""
    print("slow")
    time.sleep(0.05)
    return x


def not_a_stage(*_: object, **__: object) -> None:
    """Must not run: nothing allows it."""
    Path(ATTACKED).write_text("not_a_stage")


IMPORTED = (mkdir, system)

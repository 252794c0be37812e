"""A module whose functions a pattern of `allowed_targets` permits: its own, and not what it imported."""

import os
from os import system
from subprocess import run


def add(x: int = 0) -> int:
    """Adds one."""
    return x + 1


IMPORTED = (os, system, run)

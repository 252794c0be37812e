"""Stages of a fleet whose configuration is full of secrets."""

import logging
import os

import flowtilla


@flowtilla.stage
def speaks() -> str:
    """Says all that it knows of itself, but for its secret, which it has."""
    context = flowtilla.context()
    print(context, vars(flowtilla))
    logging.getLogger("stage").warning("%r", context)
    return "fine" if "API_TOKEN" in os.environ else "has no API_TOKEN"


@flowtilla.stage
def raises() -> None:
    """Fails."""
    context = flowtilla.context()
    raise ValueError(f"it failed: {context!r}")


@flowtilla.stage
def stores() -> None:
    """Stores, which fails."""
    flowtilla.artifacts.put("x", {"a": 1})


@flowtilla.stage
def large() -> list[int]:
    """Has a value that must be stored."""
    return list(range(100_000))

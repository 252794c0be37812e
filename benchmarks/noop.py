"""What the benchmarks run: a stage and an RQ job that do nothing."""

import flowtilla


@flowtilla.stage
def nothing() -> None:
    """Does nothing."""


def job() -> None:
    """Does nothing."""

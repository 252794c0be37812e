"""Delays between tries, and the limits of time that a workflow and a run may have."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtilla import Retries, Stage, Workflow, stage
from flowtilla.decorator import options_of
from flowtilla.errors import InvalidWorkflow, MessageError
from flowtilla.settings import Settings
from flowtilla.submission import prepare
from flowtilla_worker.engine.calls import _delay

WORKFLOW = {"name": "a", "target": "m.f"}


@pytest.mark.parametrize(
    ("retries", "delays"),
    [
        (Retries(delay=2, jitter=0), [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]),
        (Retries(delay=2, jitter=0, backoff=1), [2] * 10),
        (Retries(delay=1, jitter=0, backoff=10, max_delay=50), [1, 10] + [50] * 8),
        (Retries(), [0] * 10),
    ],
)
def test_delays_grow_up_to_the_longest(retries: Retries, delays: list[float]) -> None:
    """Each is `backoff` times the one before."""
    assert [_delay(retries, tries) for tries in range(1, 11)] == delays


@given(
    delay=st.floats(0, 1e6),
    backoff=st.floats(1, 1000),
    longest=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
    tries=st.integers(1, 10**9),
)
def test_jitter_keeps_within_its_share_and_the_longest(
    delay: float, backoff: float, longest: float, jitter: float, tries: int
) -> None:
    """However many tries there were."""
    exact = _delay(Retries(delay=delay, backoff=backoff, max_delay=longest, jitter=0), tries)
    drawn = _delay(Retries(delay=delay, backoff=backoff, max_delay=longest, jitter=jitter), tries)
    assert exact * (1 - jitter) * 0.999999 <= drawn <= min(longest, exact * (1 + jitter) * 1.000001)


def test_jitter_spreads() -> None:
    """Many that failed together do not come back together."""
    drawn = {_delay(Retries(delay=10, jitter=0.5), 1) for _ in range(100)}
    assert len(drawn) > 90
    assert 5 <= min(drawn) < 7 and 13 < max(drawn) <= 15


def test_the_timeout_of_a_whole_stage_is_an_option_as_others_are() -> None:
    """In a file, by the decorator, and on the way to the worker."""

    @stage(stage_timeout="10m")
    def decorated() -> None: ...

    given = Workflow("w", [WORKFLOW | {"timeout": "5s", "stage_timeout": "1m"}])
    assert (given.stages[0].timeout, given.stages[0].stage_timeout) == (5, 60)
    assert Workflow.model_validate_json(given.wire_json) == given
    assert options_of(Stage(name="a", target="m.f"), decorated).stage_timeout == 600
    assert options_of(given.stages[0], decorated).stage_timeout == 60


@pytest.mark.parametrize("never", [0, "0s", -1, math.inf, -math.inf, math.nan, "inf", "nan", "9" * 400 + "s", True])
def test_a_limit_that_is_none_is_refused(never: Any) -> None:
    """Of an item, a stage and a run, where it is written."""
    for option in ("timeout", "stage_timeout"):
        with pytest.raises(InvalidWorkflow, match=rf"stages\[0\]\.{option}"):
            Workflow("w", [WORKFLOW | {option: never}])
    with pytest.raises(MessageError, match=r"^timeout: "):
        prepare(
            Settings(), {"kind": "workflow", "metadata": {"name": "w"}, "spec": {"stages": [WORKFLOW]}}, timeout=never
        )

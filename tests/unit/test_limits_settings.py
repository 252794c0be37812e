"""Limits of queues and namespaces in the configuration."""

from typing import Any

import pytest
from pydantic import ValidationError

from flowtilla.settings import LimitsSettings


def test_who_is_not_named_has_the_limits_of_the_star() -> None:
    """And none where there is no star."""
    limits = LimitsSettings.model_validate(
        {"queues": {"small": {"max_queued": 5}}, "namespaces": {"*": {"max_queued": 9}, "a": {"weight": 2}}}
    )

    assert limits.max_queued("small", "b") == (5, 9)
    assert limits.max_queued("default", "a") == (None, None)
    assert limits.weights == {"*": 1.0, "a": 2.0}


@pytest.mark.parametrize(
    "limits",
    [
        {"queues": {"default": {"max_queued": 0}}},
        {"queues": {"default": {"weight": 2}}},
        {"queues": {"no name": {"max_queued": 1}}},
        {"namespaces": {"a": {"weight": 0}}},
        {"namespaces": {"a--b": {"weight": 1}}},
    ],
)
def test_what_is_no_limit_is_refused(limits: dict[str, Any]) -> None:
    """Names follow the rule of names, and numbers have bounds."""
    with pytest.raises(ValidationError):
        LimitsSettings.model_validate(limits)

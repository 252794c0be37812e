"""Workflows that break a rule."""

from typing import Any

import pytest

from flowtilla.errors import InvalidWorkflow
from flowtilla_worker.testing import run_workflow


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([], "stages is empty"),
        ([{"name": "a b", "target": "m.f"}], r"stages\[0\].name: name 'a b' is not allowed"),
        ([{"name": "a", "target": "m.f"}, {"name": "a", "target": "m.f"}], r"stages\[1\].name: 'a' is already"),
        ([{"name": "a", "target": "m.f", "depends_on": ["b"]}], r"stages\[0\].depends_on\[0\]: no stage is named 'b'"),
        ([{"name": "a", "target": "m.f", "depends_on": ["a"]}], "in a circle: a -> a"),
        ([{"name": "a", "target": "m.f", "type": "magic"}], r"stages\[0\].type: should be 'simple' or 'parameterized'"),
        ([{"name": "a", "target": "m.f", "type": "parameterized"}], "nothing to map over: give map_on"),
        (
            [{"name": "a", "target": "m.f", "timeout": "9 lightyears"}],
            r"stages\[0\].timeout: '9 lightyears' is not a dur",
        ),
        (
            [{"name": "a", "target": "m.f", "resources": {"memory": "8 GBs"}}],
            r"resources.memory: '8 GBs' is not a size",
        ),
        ([{"name": "a", "target": "m.f", "retires": 2}], r"stages\[0\].retires: unknown key; did you mean 'retries'\?"),
        ([{"name": "a", "target": "f"}], r"stages\[0\].target: 'f' is not a dotted path"),
    ],
)
def test_a_broken_rule_is_refused_at_submit(stages: list[dict[str, Any]], said: str) -> None:
    """The error names the field's path, what was given and what is allowed."""
    workflow = {"kind": "workflow", "metadata": {"name": "broken"}, "spec": {"stages": stages}}
    with pytest.raises(InvalidWorkflow, match=said):
        run_workflow(workflow)

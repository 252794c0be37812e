"""Workflows are parsed and planned once for many runs, and not all that ever came are kept."""

import gc
import json
import weakref

import pytest

from flowtilla import cache
from flowtilla.cache import Cache
from flowtilla.message import decode, encode
from flowtilla.workflow import Workflow
from flowtilla_worker.plan.catalog import Catalog
from flowtilla_worker.plan.plan import Planner


def message(number: int, stages: int) -> bytes:
    """Returns a message with a workflow of its own."""
    declared = [{"name": f"stage-{number}-{one}", "target": "json.dumps"} for one in range(stages)]
    workflow = Workflow(f"hostile-{number}", declared)
    return encode({"input": {"obj": 1}, "namespace": "n", "retention": 1}, workflow.wire_json, 2**20)


def test_equal_texts_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest used stay, the others go once the texts are too long together."""
    monkeypatch.setattr(cache, "LIMIT", 10)
    made: list[str] = []

    def make(text: str) -> list[str]:
        made.append(text)
        return [text]

    kept = Cache(make)
    first = kept("aaaa")
    kept("bbbb")
    assert kept("aaaa") is first
    kept("cccc")
    assert kept("aaaa") is first
    assert made == ["aaaa", "bbbb", "cccc"]
    kept("bbbb")
    assert made[3:] == ["bbbb"]
    kept("d" * 11)
    kept("d" * 11)
    assert made[4:] == ["d" * 11] * 2


def test_what_cannot_be_made_is_not_kept() -> None:
    """It is tried again, and takes no room."""
    kept = Cache(json.loads)
    for _ in range(2):
        with pytest.raises(ValueError, match="Expecting"):
            kept("rubbish")
    assert kept("[1]") == [1]


def test_huge_workflows_do_not_fill_the_memory() -> None:
    """Of many that somebody sends, each as large as may be, few are kept; small ones are parsed and planned once."""
    planner = Planner(Catalog(allowed_targets=["json.dumps"]))
    seen = []
    for number in range(8):
        received = decode(message(number, 5000), 2**20)
        seen += [weakref.ref(received.workflow), weakref.ref(planner.plan(received.workflow))]
        del received
    gc.collect()
    assert sum(one() is not None for one in seen) <= 2 * 4

    small = message(0, 1)
    workflow = decode(small, 2**20).workflow
    assert decode(small, 2**20).workflow is workflow
    assert planner.plan(workflow) is planner.plan(workflow)

"""Which functions a worker may run."""

import asyncio
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from flowtilla.errors import ConfigurationError, TargetError, TargetNotAllowed
from flowtilla.targets import load
from flowtilla.workflow import Workflow
from flowtilla_worker.plan import catalog
from flowtilla_worker.plan.catalog import Catalog
from flowtilla_worker.plan.plan import Planner

SOURCE = """
from os import system
import flowtilla
@flowtilla.stage
def marked(): return "marked"
def plain(): return "plain"
number = 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that nothing has imported yet."""
    (tmp_path / "catalogued.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "catalogued", raising=False)
    return "catalogued"


def test_marked_functions_of_listed_modules_may_run(module: str) -> None:
    """And only those: an unmarked one of the same module may not."""
    allowed = Catalog(modules=[module])
    allowed.load_modules()
    assert allowed.function("catalogued.marked")() == "marked"
    with pytest.raises(TargetNotAllowed, match=r"services\.worker\.modules.*services\.worker\.allowed_targets"):
        allowed.function("catalogued.plain")


def test_patterns_allow_further_targets(module: str) -> None:
    """Any function whose path matches, marked or not."""
    assert Catalog(allowed_targets=["catalogued.*"]).function("catalogued.plain")() == "plain"


def test_nothing_is_imported_for_a_target_that_is_not_allowed(module: str) -> None:
    """A message cannot make a worker import a module."""
    with pytest.raises(TargetNotAllowed):
        Catalog(allowed_targets=["elsewhere.*"]).function("catalogued.plain")
    assert "catalogued" not in sys.modules


def test_what_an_allowed_module_imported_is_not_its_own(module: str) -> None:
    """`catalogued.system` is `os.system`: refused by a pattern, allowed when it is named itself."""
    with pytest.raises(TargetNotAllowed, match=r"is really posix\.system"):
        Catalog(allowed_targets=["catalogued.*"]).function("catalogued.system")
    assert isinstance(sys.modules["catalogued"], ModuleType)
    assert Catalog(allowed_targets=["catalogued.system"]).function("catalogued.system").__name__ == "system"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("catalogued.nothing", "has no 'nothing'"),
        ("catalogued.number", "is a int, not a function"),
        ("catalogued_too.f", "there is no module 'catalogued_too'"),
        ("broken.f", "importing 'broken' failed: ZeroDivisionError"),
    ],
)
def test_a_target_that_does_not_resolve_says_why(module: str, target: str, said: str) -> None:
    """Missing attribute, no function, missing module, a module that raises."""
    with pytest.raises(TargetError, match=said):
        Catalog(allowed_targets=["*"]).function(target)


def test_a_module_that_cannot_be_imported_is_found_at_start() -> None:
    """Not by the first run that needs it."""
    with pytest.raises(ConfigurationError, match=r"services\.worker\.modules: 'not_there' cannot be imported"):
        Catalog(modules=["not_there"]).load_modules()


def test_an_import_that_does_not_end_fails_what_needs_it(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a sentence, in bounded time; once it has ended after all, what needs it is served."""
    monkeypatch.setattr("flowtilla_worker.plan.plan._IMPORT", 0.2)
    ended = threading.Event()
    monkeypatch.setattr(catalog, "load", lambda target: (ended.wait(30), load(target))[1])
    planner = Planner(Catalog(allowed_targets=["catalogued.*"]))
    workflow = Workflow("w", [{"name": "a", "target": "catalogued.plain"}])
    try:
        with pytest.raises(TargetError, match=r"catalogued\.plain .* not imported within 0\.2 s"):
            asyncio.run(planner.load(workflow))
    finally:
        ended.set()
    monkeypatch.setattr("flowtilla_worker.plan.plan._IMPORT", 30)
    asyncio.run(planner.load(workflow))
    assert planner.plan(workflow).stages["a"].function() == "plain"

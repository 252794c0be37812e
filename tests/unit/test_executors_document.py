"""docs/executors.md says what the executors' constructors say."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from documents import ROOT, blocks
from flowtilla.settings import ExecutorSettings
from flowtilla_executors.registry import EXECUTORS, create

PAGE = (ROOT / "docs" / "executors.md").read_text(encoding="utf-8")

#: Options whose amounts mean nothing without a unit.
MEASURED = {"cpus", "gpus", "memory", "object_store_memory", "resources", "threads", "adaptive", "tasks_per_worker"}


def table(title: str) -> dict[str, tuple[Any, str]]:
    """Returns default and unit of each option in the table of a section."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|([^|]*)\| .+ \|$", section, re.MULTILINE)
    return {name: (yaml.safe_load(default), unit.strip()) for name, default, unit in rows}


@pytest.mark.parametrize("name", list(EXECUTORS))
def test_every_option_is_in_its_table_with_its_default(name: str) -> None:
    """No option is missing, none is made up, each default is the constructor's, and what has a unit says it."""
    kind = type(create(ExecutorSettings(target=name)))
    real = {each.name: each.default for each in inspect.signature(kind).parameters.values()}
    shown = table(name.title())
    defaults = {option: default for option, (default, _) in shown.items()}
    assert defaults == {option: list(value) if isinstance(value, tuple) else value for option, value in real.items()}
    assert all(unit for option, (_, unit) in shown.items() if option in MEASURED)


@pytest.mark.parametrize("document", ["README.md", "docs/executors.md"])
def test_every_executor_that_is_shown_can_be_made(document: str, tmp_path: Path) -> None:
    """Its target exists and takes the options."""
    (tmp_path / "ca.pem").touch()
    (tmp_path / "worker.pem").touch()
    (tmp_path / "worker.key").touch()
    shown = [block.replace("/etc/flowtilla", str(tmp_path)) for block in blocks(document, "yaml")]
    executors = [found for block in shown for found in executors_in(yaml.safe_load(block))]
    assert len(executors) > 2
    for settings in executors:
        create(ExecutorSettings.model_validate(settings))


def executors_in(data: Any) -> list[Any]:
    """Returns the value of each key `executor` that stands anywhere in data."""
    if not isinstance(data, dict):
        return []
    return [data["executor"]] if "executor" in data else [one for value in data.values() for one in executors_in(value)]


def test_every_message_of_the_troubleshooting_is_one_that_is_said() -> None:
    """What people search the page for is in the code, word for word."""
    said = "\n".join(
        text
        for package in ("executors", "worker")
        for file in (ROOT / package).rglob("*.py")
        for text in messages(ast.parse(file.read_text()))
    )
    shown = re.findall(r"^\| (.+?) \| .+ \|$", PAGE.split("\n## Troubleshooting\n")[1], re.MULTILINE)[1:]
    assert len(shown) > 10
    assert [message for message in shown if message not in said] == []


def messages(module: ast.AST) -> Iterator[str]:
    """Yields the module's texts; `…` stands for what they are filled with."""
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)

"""The walls of the house: which package may import which, what an import costs, what is public."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import flowtilla
import flowtilla_executors

ROOT = Path(__file__).parents[2]

#: Each import root, and those it may import. Only the command line, which composes all, may look outward.
ALLOWED = {
    "producer/flowtilla": {"flowtilla"},
    "executors/flowtilla_executors": {"flowtilla", "flowtilla_executors"},
    "worker/flowtilla_worker": {"flowtilla", "flowtilla_executors", "flowtilla_worker"},
}
OURS = {"flowtilla", "flowtilla_executors", "flowtilla_worker"}


def imported(file: Path) -> set[str]:
    """Returns the top-level packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("root", ALLOWED)
def test_imports_point_one_way(root: str) -> None:
    """worker -> executors -> flowtilla, never back."""
    files = [file for file in (ROOT / root).rglob("*.py") if "cli" not in file.relative_to(ROOT / root).parts]
    assert files
    outward = {str(file.relative_to(ROOT)): wrong for file in files if (wrong := imported(file) & OURS - ALLOWED[root])}
    assert outward == {}


def loaded_by(statement: str) -> set[str]:
    """Returns the modules in a fresh interpreter after a statement."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "statement",
    [
        "import flowtilla; flowtilla.Client, flowtilla.AsyncClient",
        "import flowtilla; flowtilla.stage, flowtilla.artifacts, flowtilla.objects",
        "import flowtilla_worker.main",
        "import flowtilla.cli",
    ],
)
def test_imports_are_light(statement: str) -> None:
    """No service, worker or command pays for ray, dask, numpy or pandas that it does not use."""
    heavy = {"ray", "dask", "distributed", "numpy", "pandas", "pyarrow", "matplotlib", "fakeredis"}
    assert loaded_by(statement) & heavy == set()


def test_a_stage_process_needs_no_queue() -> None:
    """What stage authors import brings neither a Redis client nor RQ."""
    assert loaded_by("import flowtilla; flowtilla.stage, flowtilla.context") & {"redis", "rq"} == set()


def test_every_public_name_is_there() -> None:
    """`__all__` names what can be imported."""
    for module in (flowtilla, flowtilla_executors):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert set(flowtilla.__all__) <= set(dir(flowtilla))


def test_versions_agree() -> None:
    """The package says the version that it is published as."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert flowtilla.__version__ == project["version"]

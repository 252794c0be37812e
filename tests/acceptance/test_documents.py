"""What the documents show is what happens."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from documents import ROOT, blocks, write_files
from fleet import until
from flowtilla.config import load
from flowtilla_worker.dev.embedded import EmbeddedValkey


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    """A folder with every file that the README shows."""
    names = {file.name for file in write_files("README.md", tmp_path)}
    assert names == {"stages.py", "workflow.yaml", "producer.py", "flowtilla.yaml", "test_letters.py"}
    return tmp_path


@pytest.fixture
def worker(readme: Path, server: EmbeddedValkey, redis: object) -> Iterator[dict[str, str]]:
    """A worker in that folder, started as the README says; gives the environment of its clients."""
    env = os.environ | {"FLOWTILLA__REDIS__URL": server.url}
    log = readme / "worker.log"
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "flowtilla.cli", "worker"], cwd=readme, env=env, stderr=file)
    try:
        until(lambda: "listens on high, default" in log.read_text())
        yield env
    finally:
        process.terminate()
        assert process.wait(30) == 0


def run(folder: Path, env: dict[str, str], *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_producer_prints_what_it_shows(readme: Path, worker: dict[str, str]) -> None:
    """Line for line; only which item is fetched first is open."""
    shown = blocks("README.md", "text")[0].splitlines()
    printed = run(readme, worker, "producer.py").splitlines()
    assert (sorted(printed[:3]), printed[3:]) == (shown[:3], shown[3:])


def test_the_readmes_commands_work(readme: Path, worker: dict[str, str]) -> None:
    """submit --wait, runs, on the README's own files."""
    command = next(line for block in blocks("README.md", "console") for line in block.splitlines() if "--wait" in line)
    words = command.removeprefix("$ flowtilla ").split()
    assert "'letters': 16" in run(readme, worker, "-m", "flowtilla.cli", *words).replace('"', "'")
    assert "city_letters" in run(readme, worker, "-m", "flowtilla.cli", "runs", "--state", "finished")


def test_the_readmes_test_passes(readme: Path) -> None:
    """With the fixture that comes with the package."""
    assert "1 passed" in run(readme, dict(os.environ), "-m", "pytest", "-q", "test_letters.py")


def test_the_readmes_configuration_is_valid(readme: Path) -> None:
    """Each key is one that exists."""
    settings = load(readme / "flowtilla.yaml", env={})
    assert settings.services.worker.modules == ("stages",)


@pytest.mark.parametrize("document", ["docs/writing-stages.md"])
def test_stages_in_the_documents_import(document: str, tmp_path: Path) -> None:
    """They are marked with options that exist."""
    for file in write_files(document, tmp_path):
        run(tmp_path, dict(os.environ), str(file))


def test_links_between_documents_lead_somewhere() -> None:
    """Every relative link is to a file that is there."""
    import re

    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"

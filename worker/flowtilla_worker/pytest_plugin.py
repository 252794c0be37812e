"""The pytest fixture that comes with flowtilla; light, since pytest loads it in every session."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flowtilla.run import Run


@pytest.fixture
def run_workflow(tmp_path: Path) -> "Callable[..., Run]":
    """`flowtilla_worker.testing.run_workflow`, with storage under `tmp_path`."""
    from flowtilla_worker.testing import run_workflow

    return partial(run_workflow, storage=tmp_path / "storage")

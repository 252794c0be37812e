"""The configuration that flowtilla set out to understand: it runs as it stands."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet import until
from flowtilla import config
from flowtilla_executors.registry import create

FLOWTILLA = str(Path(sys.executable).with_name("flowtilla"))

#: Flowdapt's documentation of its executors shows this file, to the letter.
REFERENCE = """\
services:
  compute:
    # the default namespace, this is used for creating buckets
    # in the s3 for saved artifacts
    default_namespace: default
    executor:
      # Use the Ray Executor
      target: flowdapt.compute.executor.ray.RayExecutor
      # Make sure we're seeing logs from the workers
      log_to_driver: True
      # Set any env vars needed
      env_vars:
        OMP_NUM_THREADS: 1
      # We can specify how many resources to assign to the Cluster
      gpus: 1
      cpus: 2
      memory: 8GB
      # Extra logical resources to use when scheduling
      resources:
        hamster_wheels: 6
"""

STAGES = """
import os
import flowtilla

@flowtilla.stage(resources={"cpus": 1, "hamster_wheels": 1})
def spin():
    print("the wheel turns")
    return {"executor": flowtilla.context().executor, "threads": os.environ["OMP_NUM_THREADS"]}
"""

WORKFLOW = """
kind: workflow
metadata: {name: wheels}
spec:
  stages:
    - {name: spin, target: hamsters.spin}
"""

#: Long enough for a busy machine to start Ray on.
PATIENCE = 90.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with that configuration, a stage that needs a wheel, and its workflow."""
    (tmp_path / "flowtilla.yaml").write_text(REFERENCE)
    (tmp_path / "hamsters.py").write_text(STAGES)
    (tmp_path / "workflow.yaml").write_text(WORKFLOW)
    return tmp_path


@contextmanager
def dev(folder: Path, **env: str) -> Iterator["subprocess.Popen[str]"]:
    """Runs `flowtilla dev` in the folder on a machine without a GPU; what it says goes to `dev.log`."""
    with (folder / "dev.log").open("w") as log:
        process = subprocess.Popen(
            [FLOWTILLA, "dev", "--no-dashboard"],
            cwd=folder,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""} | env,
            stdout=log,
            stderr=log,
            text=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


def said(folder: Path) -> str:
    return (folder / "dev.log").read_text()


def test_every_key_is_understood(folder: Path) -> None:
    """The settings hold what the file says, and the executor's constructor takes it, unchanged."""
    settings = config.load(folder / "flowtilla.yaml", env={})
    executor = create(settings.services.compute.executor)
    assert settings.services.compute.default_namespace == "default"
    assert settings.services.compute.executor.options == {
        "log_to_driver": True,
        "env_vars": {"OMP_NUM_THREADS": 1},
        "gpus": 1,
        "cpus": 2,
        "memory": "8GB",
        "resources": {"hamster_wheels": 6},
    }
    assert executor.kind == "ray"


@pytest.mark.alarm(240)
def test_without_a_gpu_one_sentence_says_what_to_do(folder: Path) -> None:
    """The worker ends as one that refuses its configuration; the sentence has both ways out, and no traceback."""
    with dev(folder) as process:
        assert process.wait(PATIENCE) == 2
    errors = [line for line in said(folder).splitlines() if "gpus: 1" in line]
    assert len(errors) == 1, said(folder)
    assert "this machine has none: lower it, or set `require_gpus: false`" in errors[0]
    assert "Traceback" not in said(folder)


@pytest.mark.alarm(360)
def test_with_the_gpu_not_required_it_runs(folder: Path) -> None:
    """One variable relaxes it; then a stage that needs a hamster wheel gets it, on Ray, and everything ends well."""
    with dev(folder, FLOWTILLA__SERVICES__COMPUTE__EXECUTOR__REQUIRE_GPUS="false") as process:
        until(lambda: "listens on" in said(folder) or process.poll() is not None, PATIENCE)
        assert process.poll() is None, said(folder)
        done = subprocess.run(
            [FLOWTILLA, "submit", "workflow.yaml", "--wait", "--json"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr + said(folder)
    assert process.returncode == 0, said(folder)
    assert re.search(r'"executor": *"ray"', done.stdout), done.stdout
    assert re.search(r'"threads": *"1"', done.stdout), done.stdout
    assert "Traceback" not in said(folder)

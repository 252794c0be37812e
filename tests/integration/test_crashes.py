"""A worker dies between any two Redis commands: what comes out is what would have come out."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

import drawn
import flowtilla
from backends import Started
from flowtilla import Workflow
from flowtilla.settings import Settings
from flowtilla_worker.connections import Connections
from flowtilla_worker.dev.embedded import EmbeddedValkey
from flowtilla_worker.plan.catalog import Catalog
from flowtilla_worker.testing.loop import on_loop
from flowtilla_worker.worker import Worker
from house import housekeep


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own."""
    with EmbeddedValkey(tmp_path_factory.mktemp("server"), persistent=False) as server:
        yield server.url


# A local cluster would be started for each case; by address it is the same code.
@pytest.mark.parametrize("backend", ["local-threads", "local-processes", "ray-address", "dask-address"], indirect=True)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=drawn.workflows(most=6), number=st.integers(0, 24), when=st.sampled_from(["before", "after"]))
def test_a_crash_at_any_command_changes_nothing(
    started: Started, url: str, tmp_path: Path, case: tuple[Workflow, dict[str, Any]], number: int, when: str
) -> None:
    """Another worker finishes the run with the same values and states, and what was committed does not run again."""
    workflow, expected = case
    marks = tmp_path / f"marks-{time.monotonic_ns()}"
    marks.touch()
    described = {
        "redis": {"url": url},
        "storage": {"base_path": str(tmp_path / "storage")},
        "services": {"compute": {"executor": {"target": started.backend.kind} | started.backend.settings}},
    }
    configuration = Settings.model_validate(described)
    with flowtilla.Client(settings=configuration) as client, Redis.from_url(url) as redis:
        redis.flushdb()
        run = client.submit(workflow, config={"marks": str(marks)})

        crash(described, number, when)
        committed = {name for name, record in run.stages.items() if record.state == "finished"}
        before = ran(marks)
        # Instead of waiting for the lease to run out.
        redis.zadd("flowtilla:leases", {run.id: 1}, xx=True)
        redis.hset("flowtilla:looked", mapping={"at": round(time.time() * 1000), "patient_until": 0})
        housekeep(configuration, "look")
        finish(configuration, started)

        drawn.check(run, workflow, expected)
        assert {name: ran(marks)[name] for name in committed} == {name: before[name] for name in committed}
        assert all(ran(marks)[name] for name, value in expected.items() if value != "skipped" and value != [])
        assert redis.zcard("flowtilla:leases") == redis.zcard("rq:wip:default") == redis.llen("rq:queue:default") == 0


def crash(described: dict[str, Any], number: int, when: str) -> None:
    """Runs a worker until it dies at a command, or has nothing more to do."""
    ended = subprocess.run(
        [sys.executable, "-m", "crashing", str(number), when, json.dumps(described)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        check=False,
    )
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr.decode()


def finish(configuration: Settings, started: Started) -> None:
    """Lets another worker do what is left."""
    catalog = Catalog(allowed_targets=["drawn.*"])
    on_loop(Worker(configuration, started.executor(), catalog, Connections(configuration.redis)).serve(burst=True))


def ran(marks: Path) -> Counter[str]:
    """Returns how often each stage, or an item of it, began."""
    return Counter(marks.read_text().split())

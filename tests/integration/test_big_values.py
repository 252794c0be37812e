"""Big values stay in the cluster: neither the worker nor what stands between it and the cluster ever has them."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

MIB = 1024 * 1024

#: What runs the workflows, in a process of its own: the most memory that it ever had must be theirs.
WORKER = """
import json, sys
from pathlib import Path
import psutil
import executor_functions as f
from flowtilla import Workflow
from flowtilla_worker.testing import run_workflow, started_executor
from semantics import mapped, stage

chain = Workflow("chain", [
    stage("made", f.random_array), stage("more", f.increment, "made"), stage("seen", f.checksum, "more")
])
maps = Workflow("maps", [
    mapped("made", f.random_array, map_on="sizes"), mapped("more", f.increment, "made"), stage("seen", f.sizes, "more")
])

def peaks():
    family = [psutil.Process(), *psutil.Process().children()]
    lines = [line for one in family for line in Path(f"/proc/{one.pid}/status").read_text().splitlines()]
    return [1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")]

def grown(executor, size):
    before = peaks()
    seen = run_workflow(chain, {"size": size}, executor=executor).result()[1:2]
    seen += run_workflow(maps, {"sizes": [size // 4] * 4}, executor=executor).result()
    return seen, [after - one for one, after in zip(before, peaks(), strict=True)]

with started_executor(json.loads(sys.argv[1])) as executor:
    grown(executor, 1)
    print(json.dumps(grown(executor, int(sys.argv[2]))))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells how much memory a process ever had")
@pytest.mark.parametrize(
    "executor",
    [{"target": "ray", "cpus": 2, "object_store_memory": "700MB"}, {"target": "dask", "cpus": 2, "memory": "2GB"}],
    ids=["ray", "dask"],
)
def test_nothing_big_goes_through_the_worker(executor: dict[str, Any]) -> None:
    """Nor through its child process, Ray's driver or Dask's scheduler: an array, those of a map, and their list."""
    size = 128 * MIB
    worker = subprocess.run(
        [sys.executable, "-c", WORKER, json.dumps(executor), str(size)],
        stdout=subprocess.PIPE,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )

    seen, grown = json.loads(worker.stdout)

    assert seen == [size, *[size // 4] * 4]
    assert len(grown) >= 2
    assert max(grown) < size / 8, grown

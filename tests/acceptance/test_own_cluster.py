"""The Ray or Dask cluster that a worker has of its own: runs outlive it, and nothing of it outlives the worker."""

import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray_processes import members
from redis import Redis

from fleet import Fleet, until
from flowtilla_executors.ray import session

EXECUTORS: dict[str, dict[str, Any]] = {
    "ray": {"target": "ray", "cpus": 2, "object_store_memory": "100MB"},
    "dask": {"target": "dask", "cpus": 2},
}

#: Seconds from a cluster's death to the end of the attempts on it, and from a worker's end to that of its cluster.
BOUND, GONE = 10.0, 15.0


@pytest.fixture
def start(fleet: Fleet) -> Iterator[Callable[..., int]]:
    """Starts a worker, and returns the process that holds its cluster, of which that is the session."""
    clusters = []

    def started(kind: str, grace: str = "25s") -> int:
        fleet.start("w", executor=EXECUTORS[kind], grace=grace)
        until(lambda: "executor is ready" in fleet.said("w"), seconds=90)
        clusters.append(leader(fleet))
        return clusters[-1]

    yield started
    for cluster in clusters:
        session.end(cluster)


def leader(fleet: Fleet) -> int:
    """Returns the worker's child that leads a session of its own."""
    children = psutil.Process(fleet.workers["w"].pid).children()
    [found] = [child.pid for child in children if os.getsid(child.pid) == child.pid]
    return found


def core(cluster: int) -> list[int]:
    """Returns a Ray cluster's control store and raylet."""
    found = members(cluster, "gcs/gcs_server") + members(cluster, "raylet/raylet")
    assert len(found) == 2
    return found


def head(cluster: int) -> list[int]:
    """Returns what holds a Dask cluster's scheduler, or is Ray's driver."""
    return [cluster]


@pytest.mark.alarm(240)
@pytest.mark.parametrize(
    ("kind", "victims", "why"),
    [
        ("ray", core, "the local Ray cluster is lost: the raylet of this node, at 127.0.0.1:"),
        ("ray", head, "the local Ray cluster is lost: its driver process ended: "),
        ("dask", head, "SIGKILL"),
    ],
    ids=["ray", "ray-driver", "dask"],
)
def test_a_run_outlives_its_workers_own_cluster(
    fleet: Fleet, redis: Redis, start: Callable[..., int], kind: str, victims: Callable[[int], list[int]], why: str
) -> None:
    """Killed as a whole: the attempt ends in time with the reason, and the same process goes on with a new cluster."""
    before = start(kind)
    run = fleet.submit({"name": "mark"}, {"name": "gate", "depends_on": ["mark"]})
    fleet.begun()

    died = time.monotonic()
    for pid in victims(before):
        os.kill(pid, signal.SIGKILL)
    said = until(lambda: [line.message for line in run.logs() if "attempt 1 ended: " in line.message], seconds=BOUND)
    assert time.monotonic() - died < BOUND
    assert why in said[0]

    until(lambda: (fleet.folder / "begun-2").exists(), seconds=90)
    assert members(before) == []
    assert leader(fleet) != before
    fleet.open_gate()
    assert run.result(timeout=30) == str(fleet.folder)
    assert (run.record.attempt, len(fleet.marks())) == (2, 1)
    assert (redis.hget(f"rq:job:{run.id}", "cluster_losses"), redis.hget(f"rq:job:{run.id}", "losses")) == (b"1", None)
    assert [(one.pid, one.ready) for one in fleet.client.workers()] == [(fleet.workers["w"].pid, True)]
    assert fleet.workers["w"].poll() is None


class Family:
    """A worker and all that came of it: by what they have in their environment, or by the session they are in.

    Args:
        word: what they have in their environment.
        cluster: the session of its cluster; some of Ray's processes write over their environment.
        own: the test's folder, which may have files of theirs.
        since: when the worker was started; older files are no work of theirs.
    """

    def __init__(self, word: str, cluster: int, own: Path, since: float) -> None:
        self._word, self._cluster = word.encode(), cluster
        living = self.processes()
        links = [link for pid in living for link in _links(pid)]
        self.sockets = _listening() & set(links)
        self._temporary = {
            Path(link.removesuffix(" (deleted)")) for link in links if link.startswith(("/dev/shm/", "/tmp/"))
        }
        self._own, self._since = own, since

    def files(self) -> list[Path]:
        """Returns what there is of the files for a time only, that they had open or in their memory."""
        found = []
        for file in self._temporary:
            with suppress(OSError):
                if file.stat().st_ctime > self._since and not file.is_relative_to(self._own):
                    found.append(file)
        return found

    def processes(self) -> set[int]:
        found = set(members(self._cluster))
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if self._word in environment.read_bytes():
                    found.add(int(environment.parent.name))
        return found


def _links(pid: int) -> Iterator[str]:
    """Gives what a process has open, and in its memory."""
    for descriptor in range(1024):
        with suppress(OSError):
            yield str(Path(f"/proc/{pid}/fd/{descriptor}").readlink())
    with suppress(OSError):  # it has just ended
        for row in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if len(columns := row.split(None, 5)) == 6:
                yield columns[5]


def _listening() -> set[str]:
    """Returns the sockets that listen, as links to them say."""
    tables = [Path(f"/proc/net/{table}").read_text().splitlines()[1:] for table in ("tcp", "tcp6")]
    return {f"socket:[{row.split()[9]}]" for table in tables for row in table if row.split()[3] == "0A"}


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder with a name that is short enough for the sockets that Ray has in it."""
    folder = Path("/tmp", secrets.token_hex(3))
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.alarm(180)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("kind", EXECUTORS)
def test_nothing_of_a_cluster_outlives_its_worker(
    fleet: Fleet,
    temporary: Path,
    start: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    how: signal.Signals,
) -> None:
    """However it ends while a stage runs: no process, no socket that listens, no shared memory, no folder stays."""
    word = secrets.token_hex(16)
    monkeypatch.setenv("FAMILY", word)
    monkeypatch.setenv("TMPDIR", str(temporary))
    began = time.time()
    cluster = start(kind, grace="2s")
    fleet.submit({"name": "gate"})
    fleet.begun()
    family = Family(word, cluster, fleet.folder, began)
    assert len(family.processes()) > 4
    assert family.sockets
    assert list(temporary.iterdir())
    assert family.files()

    fleet.kill("w", how)

    assert fleet.ended("w") == (0 if how is signal.SIGTERM else -how)
    until(lambda: not family.processes(), seconds=GONE)
    # Threads of a process that counts as dead may still be closing them.
    until(lambda: not family.sockets & _listening())
    assert list(temporary.iterdir()) == []
    assert family.files() == []

"""Dask collections whose partitions lie on S3, as moto's server speaks it over HTTP: stored by a cluster, read here."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

import dask_stages as s
import flowtilla
from backends import Backend
from executor_bench import Bench, call, context, making
from fleet import Fleet, until
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactRecord, ArtifactStore
from flowtilla_worker.dev.embedded import EmbeddedValkey

PARTS = 12


@pytest.fixture(scope="module")
def parameters() -> Iterator[dict[str, Any]]:
    """The parameters of an S3 server that lives as long as this module's tests."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "endpoint_url": f"http://{host}:{port}",
        "key": "some-key",
        "secret": "some-secret",
        "client_kwargs": {"region_name": "eu-west-1"},
    }
    server.stop()


class Place:
    """A storage of a test's own.

    Args:
        storage: its settings.
    """

    def __init__(self, storage: dict[str, Any]) -> None:
        self.storage = storage
        self.settings = StorageSettings.model_validate(storage)
        self.store = ArtifactStore(self.settings)

    def files(self) -> list[str]:
        """Returns the names of all files that lie there, but for the notes of what was staged."""
        files = fsspec.filesystem(self.settings.protocol, **self.settings.parameters)
        files.invalidate_cache()
        paths = [path.split("/") for path in files.find(self.settings.base_path)]
        return sorted(path[-1] for path in paths if "staged" not in path)


@pytest.fixture(params=["s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, parameters: dict[str, Any]) -> Place:
    """A new bucket on the server, or a folder."""
    if request.param == "file":
        return Place({"base_path": str(tmp_path / "storage")})
    name = f"bucket-{os.urandom(4).hex()}"
    fsspec.filesystem("s3", **parameters).mkdir(name)
    return Place({"protocol": "s3", "base_path": name, "parameters": parameters})


@pytest.fixture(scope="module")
def dask() -> Iterator[Bench]:
    with making(Backend("dask")) as make:
        yield make(cpus=2, threads=2)


def test_a_run_leaves_collections_that_the_client_reads_in_order(
    server: EmbeddedValkey, redis: object, tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its results and artifacts, of more than ten partitions each: written by Dask's processes, read by another."""
    parents = {
        "frame": [],
        "bag": [],
        "doubled_rows": ["frame"],
        "doubled_numbers": ["bag"],
        "stores": ["frame", "bag"],
    }
    stages = [
        {"name": name, "target": f"collection_stages.{name}", "depends_on": needed} for name, needed in parents.items()
    ]
    with Fleet(server.url, tmp_path, place.storage) as fleet:
        fleet.start("w", executor={"target": "dask", "cpus": 2}, modules='["collection_stages"]')
        run = fleet.client.submit(flowtilla.Workflow("tested", stages), namespace="research")
        result = run.result(timeout=60)

        assert set(result) == {"doubled_rows", "doubled_numbers", "stores"}
        rows, numbers = result["doubled_rows"], result["doubled_numbers"]
        assert (rows.npartitions, numbers.npartitions) == (PARTS, PARTS)
        assert rows.compute()["twice"].tolist() == list(range(0, 240, 2))
        assert numbers.compute(scheduler="threads") == list(range(0, 48, 2))

        assert run.artifacts["table"].path.startswith(f"s3://{place.settings.base_path}/artifacts/research/table/")
        assert run.artifacts["table"].read().compute()["n"].tolist() == list(range(120))
        monkeypatch.setenv("FLOWTILLA__STORAGE", json.dumps(place.storage))
        stored = flowtilla.artifacts.get("numbers", namespace="research")
        assert [path for path in stored.record.files if "part" in path] == [
            f"part-{number:05}.json" for number in range(PARTS)
        ]
        assert stored.read().compute(scheduler="threads") == list(range(24))


@pytest.mark.parametrize("place", ["s3", "file"], indirect=True)
def test_a_store_that_fails_leaves_nothing(dask: Bench, place: Place, tmp_path: Path) -> None:
    """Not even the part that was being written when another one failed."""
    outcome = dask.result(call(s.stored_half, str(tmp_path), context=context(_storage=place.settings)))
    assert outcome.failure is not None
    assert outcome.failure.message == "a part of a dask Bag cannot be computed: ValueError: the other half"

    assert busy(dask)
    (tmp_path / "gate").touch()
    until(lambda: not busy(dask))

    assert place.files() == []
    assert place.store.namespaces() == []


def busy(bench: Bench) -> bool:
    """Returns whether anything runs on the cluster."""
    running = bench.executor.session._client.run(lambda dask_worker: len(dask_worker.active_keys))
    return any(running.values())


def test_a_store_that_was_stopped_is_never_seen(dask: Bench, place: Place, tmp_path: Path) -> None:
    """While its parts are written nobody finds them, and when the stage has ended they are gone."""
    gate = tmp_path / "gate"
    storing = dask.submit(call(s.stored_once_there, str(gate), context=context(_storage=place.settings)))
    until(place.files)
    assert place.store.list("space") == []

    with ThreadPoolExecutor(1) as pool:
        cancelling = pool.submit(dask.cancel, storing)
        assert dask.outcome(storing).failure is not None
        gate.touch()
        cancelling.result()

    until(lambda: not place.files())
    assert place.store.list("space") == []


def test_a_store_whose_process_dies_is_made_again(dask: Bench, place: Place, tmp_path: Path) -> None:
    """Nobody sees what it had written; what is published is whole."""
    outcome = dask.result(call(s.stored_at_last, str(tmp_path), context=context(_storage=place.settings)))
    assert outcome.failure is None
    assert (tmp_path / "again").exists()
    assert place.store.list("space") == []

    place.store.publish(ArtifactRecord.model_validate(outcome.artifacts[0]))

    (found,) = place.store.list("space")
    assert found.read().compute(scheduler="threads") == list(range(PARTS))

"""The same promises on every back end: local files, memory, and S3 as moto's server speaks it over HTTP."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from moto.server import ThreadedMotoServer

from flowtilla.errors import ArtifactNotFound, StorageError
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactStore


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
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


@pytest.fixture(params=["file", "memory", "s3", "s3-buckets"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    unique = f"{tmp_path.name.replace('_', '-')[-30:]}-{os.urandom(4).hex()}".strip("-").lower()
    if request.param == "file":
        return ArtifactStore(StorageSettings(base_path=str(tmp_path / "storage")))
    if request.param == "memory":
        return ArtifactStore(StorageSettings(protocol="memory", base_path=unique))
    parameters = request.getfixturevalue("s3")
    if request.param == "s3-buckets":
        settings = StorageSettings(protocol="s3", base_path=unique, parameters=parameters, bucket_per_namespace=True)
        return ArtifactStore(settings)
    _make_bucket(parameters, unique)
    return ArtifactStore(StorageSettings(protocol="s3", base_path=f"{unique}/team", parameters=parameters))


def _make_bucket(parameters: dict[str, Any], bucket: str) -> None:
    from s3fs import S3FileSystem

    S3FileSystem(**parameters).mkdir(bucket)


def test_the_life_of_an_artifact(store: ArtifactStore) -> None:
    """Staged, published, replaced, listed, read, deleted: the same on every back end."""
    with pytest.raises(ArtifactNotFound):
        store.get("ns", "value")
    staged = store.stage("ns", "value", {"n": 1})
    assert store.list("ns") == []
    assert store.publish(staged)
    assert store.publish(staged)
    second = store.put("ns", "value", "two", metadata={"a": 1})
    assert not store.publish(staged)
    store.put("ns", "other", b"")
    store.put("other", "value", None)
    assert [(one.name, one.read()) for one in store.list("ns")] == [("other", b""), ("value", "two")]
    assert store.get("ns", "value").record == second.record
    assert store.get("ns", "value", staged.version).read() == {"n": 1}
    assert store.namespaces() == ["ns", "other"]
    with store.get("ns", "value").open() as one, store.get("ns", "value").open() as another:
        assert (one.read(1), another.read(2), one.read()) == (b"t", b"tw", b"wo")
    assert store.delete("ns", "value")
    assert not store.delete("ns", "value")
    assert not store.exists("ns", "value")
    assert store.exists("other", "value")


def test_discarded_leaves_nothing(store: ArtifactStore) -> None:
    """A staged version that was discarded is gone with its files."""
    staged = store.stage("ns", "value", "x")
    store.discard("ns", "value", staged.version)
    with pytest.raises(StorageError):
        store.artifact(staged).read()
    with pytest.raises(StorageError):
        store.publish(staged)


def test_typed_content(store: ArtifactStore, tmp_path: Path) -> None:
    """Frames, arrays, files and folders come back, and their paths are those of the back end."""
    (tmp_path / "site" / "deep").mkdir(parents=True)
    (tmp_path / "site" / "deep" / "día [1]*?.txt").write_text("x")
    (tmp_path / "large.bin").write_bytes(os.urandom(6_000_000))
    frame = pandas.DataFrame({"n": [1, 2]})
    pandas.testing.assert_frame_equal(store.put("ns", "frame", frame).read(), frame)
    numpy.testing.assert_array_equal(store.put("ns", "array", numpy.eye(2)).read(), numpy.eye(2))
    assert store.put("ns", "site", tmp_path / "site").read() == {"deep/día [1]*?.txt": b"x"}
    large = store.put("ns", "large", tmp_path / "large.bin")
    assert large.download(tmp_path / "copy").read_bytes() == (tmp_path / "large.bin").read_bytes()
    protocol = store.settings.protocol
    assert large.path.startswith("/" if protocol == "file" else f"{protocol}://{store.settings.base_path}")
    assert store.get("ns", "site").download(tmp_path / "site-copy").joinpath("deep", "día [1]*?.txt").is_file()
    assert store.delete("ns", "site")


@pytest.mark.parametrize("store", ["file", "memory", "s3"], indirect=True)
def test_a_reader_sees_whole_versions_only(store: ArtifactStore) -> None:
    """While a writer replaces an artifact 100 times, readers see only whole versions, and never go back."""
    store.put("ns", "value", {"n": 0, "copies": [0] * 300})
    done = threading.Event()
    seen: list[list[int]] = [[], []]

    def write() -> int:
        n, deadline = 0, time.monotonic() + 120
        try:
            # On until each reader has followed for a while, however the threads take turns.
            while (n < 100 or min(len(set(one)) for one in seen) < 5) and time.monotonic() < deadline:
                n += 1
                store.put("ns", "value", {"n": n, "copies": [n] * 300})
            return n
        finally:
            done.set()

    def read(mine: list[int]) -> None:
        while not done.is_set():
            value = store.get("ns", "value").read()
            assert value["copies"] == [value["n"]] * 300
            mine.append(value["n"])

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read, one) for one in seen]
        written = pool.submit(write).result()
        for reader in readers:
            reader.result()
    assert written >= 100
    for one in seen:
        assert one == sorted(one)
        assert len(set(one)) >= 5
    assert store.get("ns", "value").read()["n"] == written


def test_competing_writers_leave_the_newest(store: ArtifactStore) -> None:
    """Publishers of one name that compete leave the newest of their versions, whole."""
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: store.put("ns", "value", n), range(12)))
    newest = max(made, key=lambda artifact: artifact.record.version)
    assert store.get("ns", "value").record == newest.record


_WRITER = """
import sys
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactStore
store = ArtifactStore(StorageSettings.model_validate_json(sys.argv[1]))
for n in range(1, 41):
    store.put("ns", "value", {"n": n, "copies": [n] * 300})
"""


@pytest.mark.parametrize("store", ["file", "s3"], indirect=True)
def test_another_process_publishes(store: ArtifactStore) -> None:
    """A reader sees each whole version that another process publishes."""
    store.put("ns", "value", {"n": 0, "copies": [0] * 300})
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, store.settings.model_dump_json()])
    deadline = time.monotonic() + 60
    seen = 0
    while seen < 40 and time.monotonic() < deadline:
        value = store.get("ns", "value").read()
        assert value["copies"] == [value["n"]] * 300
        assert value["n"] >= seen
        seen = value["n"]
    assert (writer.wait(30), seen) == (0, 40)


@pytest.mark.parametrize("store", ["file", "memory", "s3"], indirect=True)
def test_a_fork_may_go_on(store: ArtifactStore) -> None:
    """A store that was used before a fork works in the child too."""
    store.put("ns", "value", "parent")
    script = (
        "import os, sys; from flowtilla.settings import StorageSettings; from flowtilla.storage import ArtifactStore\n"
        "store = ArtifactStore(StorageSettings.model_validate_json(sys.argv[1]))\n"
        "store.put('ns', 'first', 1)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    store.put('ns', 'value', 'child'); os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    subprocess.run([sys.executable, "-c", script, store.settings.model_dump_json()], check=True, timeout=60)
    expected = "parent" if store.settings.protocol == "memory" else "child"
    assert store.get("ns", "value").read() == expected

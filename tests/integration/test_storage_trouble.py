"""Storage that is full, closed, away or wrong: one clear error, no secret, nothing left behind."""

import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from moto.server import ThreadedMotoServer

from flowtilla.errors import StorageError, ValueNotStorable
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactStore
from flowtilla.storage.content import Content, content_of
from flowtilla.storage.record import new_version
from flowtilla.storage.versions import Versions

SECRET = "hunter2-very-secret"


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    """The parameters of an S3 server that knows no user, and so lets nobody in once it was told to look."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "endpoint_url": f"http://{host}:{port}",
        "key": "some-key",
        "secret": SECRET,
        "client_kwargs": {"region_name": "eu-west-1"},
    }
    server.stop()


def _store(base: str, parameters: dict[str, Any], **more: Any) -> ArtifactStore:
    return ArtifactStore(StorageSettings(protocol="s3", base_path=base, parameters=parameters, **more))


def _verbs(store: ArtifactStore) -> dict[str, Callable[[], object]]:
    return {
        "put": lambda: store.put("ns", "value", 1),
        "get": lambda: store.get("ns", "value"),
        "list": lambda: store.list("ns"),
    }


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


_LIMITED = """
import resource, signal, sys
from pathlib import Path
from flowtilla.errors import FlowtillaError
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactStore
store = ArtifactStore(StorageSettings(base_path=sys.argv[1]))
store.put("ns", "value", "before")
values = {"bytes": b"x" * 3_000_000, "json": ["x" * 100] * 30_000, "file": Path(sys.argv[2])}
import numpy, pandas, pyarrow.parquet
values |= {"array": numpy.arange(400_000.0), "frame": pandas.DataFrame({"a": numpy.random.rand(400_000)})}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
for kind, value in values.items():
    try:
        store.put("ns", "value", value)
    except FlowtillaError as error:
        print(kind, type(error).__name__, error)
try:
    store.put("ns", "value", values["bytes"], format="pickle")
except FlowtillaError as error:
    print("pickle", type(error).__name__, error)
assert store.get("ns", "value").read() == "before"
"""


def test_no_room(tmp_path: Path) -> None:
    """When a file cannot grow, each kind of value fails with one clear error; what was there stays, no part remains."""
    (tmp_path / "large").write_bytes(b"x" * 3_000_000)
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "storage"), str(tmp_path / "large")]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["bytes", "json", "file", "array", "frame", "pickle"]
    for line in lines:
        assert line.split()[1] == "StorageError", line
        assert f"could not write {tmp_path}/storage/artifacts/ns/value/" in line
        assert "File too large" in line
        assert "(protocol file)" in line
        assert "free some space" in line
    assert len(_files(tmp_path / "storage")) == 3


def test_a_full_device(tmp_path: Path) -> None:
    """A device that is full while the last bytes are flushed is met with the same error."""
    storage = tmp_path / "storage"
    store = ArtifactStore(StorageSettings(base_path=str(storage)))
    with pytest.raises(StorageError, match="free some space"), store._files.writing(str(storage / "a" / "b")) as sink:
        # The file under the sink becomes the device that has no room.
        os.dup2(os.open("/dev/full", os.O_WRONLY), sink._inner.fileno())  # type: ignore[attr-defined]
        sink.write(b"x")


_UNPRIVILEGED = """
import os, sys
import fsspec.implementations.local
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactStore
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
store = ArtifactStore(StorageSettings(base_path=sys.argv[1]))
store.put("ns", "value", 1)
"""


def test_a_folder_one_may_not_write() -> None:
    """Without permission the error names the path, the setting and what to check."""
    # Not tmp_path, which another user cannot even reach.
    with tempfile.TemporaryDirectory() as closed:
        Path(closed).chmod(0o555)
        command = [sys.executable, "-c", _UNPRIVILEGED, f"{closed}/storage"]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 1
        assert f"StorageError: could not write {closed}/storage/artifacts/ns/value" in ran.stderr
        assert "PermissionError" in ran.stderr
        assert "check that storage.base_path exists or can be made, and who may write there" in ran.stderr
        assert not any(Path(closed).iterdir())


def test_a_base_that_is_a_file(tmp_path: Path) -> None:
    """A base_path that is a file is told by each verb that writes."""
    (tmp_path / "storage").write_text("x")
    store = ArtifactStore(StorageSettings(base_path=str(tmp_path / "storage")))
    with pytest.raises(StorageError, match=r"storage/artifacts.*check that storage\.base_path"):
        store.put("ns", "value", 1)


def test_a_value_that_breaks_halfway_leaves_nothing(tmp_path: Path) -> None:
    """A folder whose second file cannot be read leaves neither files nor folders of its first."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a").write_text("x")
    # A file that is there and cannot be read, not even by root.
    (tmp_path / "site" / "b").symlink_to("b-is-not-there")
    store = ArtifactStore(StorageSettings(base_path=str(tmp_path / "storage")))
    content = content_of(tmp_path / "site" / "a", "file").files[""]
    broken = Content(
        "folder", "pathlib.Path", {"a": content, "b": content_of(tmp_path / "site" / "b", "file").files[""]}
    )
    with pytest.raises(ValueNotStorable, match="b is not a file"):
        Versions(store._files, "ns", "site").write(new_version(None), broken)
    assert [path.name for path in (tmp_path / "storage").rglob("*")] == ["artifacts"]


def test_a_missing_bucket(s3: dict[str, Any]) -> None:
    """A bucket that does not exist is told by each verb, and never taken for an empty one."""
    for verb in _verbs(_store("no-such-bucket/team", s3)).values():
        with pytest.raises(StorageError, match=r"there is no bucket no-such-bucket; check that the bucket") as caught:
            verb()
        assert "(protocol s3)" in str(caught.value)
        assert "s3://no-such-bucket/team/artifacts/ns" in str(caught.value)


@pytest.mark.parametrize("verb", ["put", "list"])
def test_an_endpoint_that_is_away(s3: dict[str, Any], unused_port: int, verb: str) -> None:
    """An endpoint where nobody listens is told within a bound, with its address."""
    away = s3 | {"endpoint_url": f"http://127.0.0.1:{unused_port}"}
    with pytest.raises(StorageError, match=rf"127\.0\.0\.1:{unused_port}.*check that the endpoint") as caught:
        _verbs(_store("bucket", away))[verb]()
    _shows_no_secret(caught.value)


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is taken by a socket which accepts nobody."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def guarded(s3: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parameters of the server while it checks who asks."""

    def let_in(requests: bytes) -> None:
        url = f"{s3['endpoint_url']}/moto-api/reset-auth"
        with urlopen(Request(url, data=requests, headers={"Content-Type": "text/plain"})) as answer:
            assert answer.status == 200

    let_in(b"0")
    yield s3
    let_in(b"inf")


def test_wrong_credentials(guarded: dict[str, Any]) -> None:
    """Credentials that are refused are told as such, and not shown."""
    for verb in _verbs(_store("bucket", guarded)).values():
        with pytest.raises(StorageError, match=r"check the credentials in storage\.parameters") as caught:
            verb()
        _shows_no_secret(caught.value)


@pytest.mark.parametrize(
    "parameters",
    [
        {"secret": SECRET, "endpoint_url": f"http://user:{SECRET}@[bad"},
        {"client_kwargs": {"aws_session_token": SECRET, "region_name": SECRET, SECRET: [SECRET]}},
        {"token": SECRET, "nonsense": SECRET},
    ],
)
def test_no_parameter_is_shown(parameters: dict[str, Any]) -> None:
    """Whatever is wrong with the parameters, no value of theirs is in the error, its traceback or a repr."""
    store = _store("bucket", parameters)
    assert SECRET not in repr(store)
    assert SECRET not in repr(store.settings)
    with pytest.raises(StorageError) as caught:
        store.put("ns", "value", 1)
    _shows_no_secret(caught.value)


@pytest.mark.parametrize(("protocol", "said"), [("s5", "Protocol not known: s5"), ("gcs", "install the package")])
def test_a_protocol_that_is_not_there(protocol: str, said: str) -> None:
    """An unknown protocol, or one whose package is missing, is told with what to do."""
    with pytest.raises(StorageError, match=said):
        ArtifactStore(StorageSettings(protocol=protocol, base_path="bucket")).list("ns")


def _shows_no_secret(error: BaseException) -> None:
    assert SECRET not in "".join(traceback.format_exception(error))

"""What a Ray executor ships to its stages, and its dashboard."""

import base64
import hashlib
import re
import socket
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from backends import Backend
from executor_bench import Bench, context, making
from flowtilla.errors import ClusterUnreachable
from flowtilla_executors import Call, Literal
from ray_cluster import started

CODE = """
from pathlib import Path

def read():
    return Path("data.txt").read_text()

def name():
    return __name__
"""


@pytest.fixture
def bench() -> Iterator[Any]:
    """Starts Ray executors with small clusters."""
    with making(Backend("ray", {"cpus": 1, "object_store_memory": "100MB"})) as make:
        yield make


def value(bench: Bench, target: str) -> Any:
    return bench.value(Call(target, context(executor="ray")))


def test_a_working_directory_is_shipped(bench: Any, tmp_path: Path) -> None:
    """Its modules can be imported, and it is the stages' current folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "shipped_work.py").write_text(CODE)
    (folder / "data.txt").write_text("from the folder")

    assert value(bench(working_dir=str(folder)), "shipped_work.read") == "from the folder"


def test_packages_are_shipped(bench: Any, tmp_path: Path) -> None:
    """Those that this process could not import itself."""
    package = tmp_path / "shipped_package"
    package.mkdir()
    (package / "__init__.py").write_text(CODE)

    assert value(bench(py_modules=[str(package)]), "shipped_package.name") == "shipped_package"


@pytest.mark.alarm(300)
def test_packages_are_installed(bench: Any, tmp_path: Path) -> None:
    """What `pip` names, a wheel of one's own here, is there for the stages and for nobody else."""
    executor = bench(pip=[str(wheel(tmp_path))])

    assert value(executor, "shipped_wheel.name") == "shipped_wheel"
    with pytest.raises(ImportError):
        __import__("shipped_wheel")


def test_the_dashboard_is_there_when_asked_for(bench: Any) -> None:
    """On the host and port that were asked for, for who has the token; the executor says where both are."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        port = probe.getsockname()[1]
    detail = bench(dashboard=True, dashboard_host="127.0.0.2", dashboard_port=port).executor.info().detail

    url, token = re.search(r"dashboard at (http://\S+), which asks for the token in (\S+)", detail).groups()
    assert url == f"http://127.0.0.2:{port}"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/api/version", timeout=20)
    request = urllib.request.Request(
        f"{url}/api/version", headers={"Authorization": f"Bearer {Path(token).read_text()}"}
    )
    with urllib.request.urlopen(request, timeout=20) as page:
        assert page.status == 200


@pytest.mark.parametrize("asked", [True, False])
def test_what_processes_print_is_printed_here_when_asked_for(
    bench: Any, asked: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is not a stage's own line, such as of its subprocesses; else nobody sees it here."""
    executor = bench(log_to_driver=asked)

    executor.finished(Call("os.system", context(executor="ray"), (Literal("echo from a subprocess"),)))

    if asked:
        seen: list[str] = []
        executor.until(lambda: seen.append("".join(capfd.readouterr())) or "from a subprocess" in "".join(seen), seen)
    else:
        executor.close()
        assert "from a subprocess" not in "".join(capfd.readouterr())


def test_auto_is_the_cluster_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` finds what `RAY_ADDRESS` names, with the token of the environment."""
    with ExitStack() as stack:
        cluster = stack.enter_context(started(tmp_path, cpus=3))
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", cluster.environment["RAY_AUTH_TOKEN_PATH"])
        make = stack.enter_context(making(Backend("ray", {"cluster_address": "auto"})))

        assert make().executor.info().cpus == 3


def test_auto_is_the_cluster_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that `ray start` started last; that it asks for a token is found out as of any other."""
    with started(tmp_path, cpus=3) as cluster:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        # Where Ray looks for what it wrote there, when several clusters are on this machine.
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(cluster.address)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
        joined = Bench(Backend("ray", {"cluster_address": "auto"}).make())

        with pytest.raises(ClusterUnreachable, match=rf"at {cluster.address} asks for a token, and there is none"):
            joined.start()
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", cluster.environment["RAY_AUTH_TOKEN_PATH"])
        joined.start()
        assert joined.executor.info().cpus == 3
        joined.close()


def wheel(folder: Path) -> Path:
    """Makes a wheel of one module, as pip wants it."""
    info = "shipped_wheel-1.0.dist-info"
    files = {
        "shipped_wheel.py": CODE,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: shipped-wheel\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{name},sha256={digest(text)},{len(text.encode())}" for name, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""])
    path = folder / "shipped_wheel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()

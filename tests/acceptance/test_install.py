"""The images' steps, run in clean virtual environments: what they install is what was packed, pinned, and works.

There is no container engine here, so the steps are read from the Dockerfile and run in a folder.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import urllib.error
import urllib.request
import zipfile
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import pytest

import flowtilla
from dockerfile import Dockerfile, sources, variables
from fleet import until
from flowtilla.settings import Settings
from flowtilla_worker.dev.embedded import EmbeddedValkey
from flowtilla_worker.dev.ports import free_port

ROOT = Path(__file__).parents[2]

# Installing takes a minute or two, and longer on a slow line.
pytestmark = pytest.mark.alarm(900)


@dataclass(frozen=True)
class Image:
    """The build stages of the Dockerfile, run in folders.

    Args:
        folder: where everything is.
        build: the working directory of the build.
    """

    folder: Path
    build: Path

    @property
    def wheel(self) -> Path:
        """The wheel that was built."""
        (wheel,) = self.build.glob("dist/*.whl")
        return wheel

    def venv(self, target: str) -> Path:
        """What a target copies as /opt/flowtilla."""
        return self.folder / target

    def environment(self, target: str) -> dict[str, str]:
        """The environment of a command in a target's container."""
        return _clean() | {"PATH": f"{self.venv(target)}/bin:/usr/bin:/bin"}

    def run(self, target: str, *command: str, cwd: Path) -> str:
        """Runs a command as in a target's container and returns what it printed."""
        done = subprocess.run(command, cwd=cwd, env=self.environment(target), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _clean() -> dict[str, str]:
    """This process's environment without what points at its own Python."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


@pytest.fixture(scope="module")
def dockerfile() -> Dockerfile:
    return Dockerfile.read(ROOT / "deploy" / "Dockerfile")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, dockerfile: Dockerfile) -> Image:
    """Both targets, built from the sdist."""
    folder = tmp_path_factory.mktemp("image")
    context = _unpacked_sdist(folder)
    subprocess.run([sys.executable, "-m", "venv", folder / "python"], check=True, env=_clean())
    image = Image(folder, folder / "build")
    image.build.mkdir()
    done = 0
    for target in ("worker", "dashboard"):
        steps = dockerfile.steps(f"build-{target}")
        # Both begin with the same stage, which is built once.
        _build(steps[done:], context, image, target)
        done = len(dockerfile.stages["wheel"].steps)
    return image


def _unpacked_sdist(folder: Path) -> Path:
    command = [sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, env=_clean(), stdout=subprocess.DEVNULL)
    (packed,) = folder.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / packed.name.removesuffix(".tar.gz")


def _build(steps: list[tuple[str, str]], context: Path, image: Image, target: str) -> None:
    env = _clean() | {"PATH": f"{image.folder}/python/bin:/usr/bin:/bin"}
    for keyword, rest in steps:
        if keyword in ("ENV", "ARG"):
            env |= variables(rest)
            # The only absolute path of the build.
            env |= {"VENV": str(image.venv(target))} if "VENV" in env else {}
        elif keyword == "COPY":
            _copy(rest, context, image.build)
        elif keyword == "RUN":
            done = subprocess.run(["sh", "-c", rest], cwd=image.build, env=env, capture_output=True, text=True)
            assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"
        else:
            assert keyword == "WORKDIR", keyword


def _copy(rest: str, context: Path, build: Path) -> None:
    target = build / rest.split()[-1]
    for source in sources(rest):
        if (context / source).is_dir():
            shutil.copytree(context / source, target)
        else:
            shutil.copy(context / source, target)


def test_the_wheel_holds_the_three_packages_and_nothing_else(image: Image) -> None:
    """Code, scripts and type markers of the three import roots are packed; tests and examples are not."""
    names = zipfile.ZipFile(image.wheel).namelist()
    roots = {name.partition("/")[0] for name in names}
    packages = {"flowtilla", "flowtilla_executors", "flowtilla_worker"}
    assert roots - packages == {f"flowtilla-{flowtilla.__version__}.dist-info"}
    for folder, package in (
        ("producer", "flowtilla"),
        ("executors", "flowtilla_executors"),
        ("worker", "flowtilla_worker"),
    ):
        inside = (ROOT / folder / package).rglob("*")
        expected = {str(p.relative_to(ROOT / folder)) for p in inside if p.is_file() and p.suffix != ".pyc"}
        assert {name for name in names if name.startswith(f"{package}/")} == expected


@pytest.mark.parametrize("target", ["worker", "dashboard"])
def test_what_an_image_installs_is_pinned(image: Image, target: str) -> None:
    """Every distribution in the environment has the version that constraints.txt names."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pins = {_normal(name): version for name, version in pins.items()}
    command = ["pip", "--python", str(image.venv(target)), "list", "--format", "json"]
    listed = subprocess.run(
        [f"{image.folder}/python/bin/{command[0]}", *command[1:]], check=True, env=_clean(), capture_output=True
    )
    installed = {_normal(one["name"]): one["version"] for one in json.loads(listed.stdout)}
    assert installed.pop("flowtilla") == flowtilla.__version__
    assert installed == {name: pins.get(name) for name in installed}


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


@pytest.mark.parametrize("target", ["worker", "dashboard"])
def test_the_command_and_the_packages_work_where_a_user_has_a_worker_module(
    image: Image, tmp_path: Path, target: str
) -> None:
    """A user's own worker.py, producer.py and executors.py in the working directory stand in nobody's way."""
    for name in ("worker", "producer", "executors"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the user’s own module was imported')\n")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert image.run(target, "flowtilla", "--version", cwd=tmp_path).strip() == version
    program = "import flowtilla, flowtilla_worker, flowtilla_executors; print(flowtilla.__file__)"
    where = image.run(target, "python", "-c", program, cwd=tmp_path)
    assert where.startswith(str(image.venv(target)))


def test_the_worker_s_command_runs_a_user_s_own_worker_module(
    image: Image, dockerfile: Dockerfile, server: EmbeddedValkey, tmp_path: Path
) -> None:
    """The image's CMD, in a folder whose stages are in a worker.py, runs a workflow of them to its end."""
    (tmp_path / "worker.py").write_text(
        "import flowtilla\n\n\n@flowtilla.stage\ndef double(n):\n    print('doubling')\n    return 2 * n\n"
    )
    (tmp_path / "flowtilla.yaml").write_text(
        f"redis: {{url: '{server.url}'}}\n"
        f"storage: {{base_path: {tmp_path}/storage}}\n"
        "services: {worker: {queues: [installed], modules: [worker]}}\n"
    )
    settings = Settings.model_validate(
        {"redis": {"url": server.url}, "storage": {"base_path": str(tmp_path / "storage")}}
    )
    with flowtilla.Client(settings=settings) as client:
        flow = flowtilla.Workflow("doubling", [{"name": "double", "target": "worker.double"}])
        run = client.submit(flow, input={"n": 21}, queue="installed")
        image.run("worker", *dockerfile.command("worker"), "--burst", cwd=tmp_path)
        assert run.result(timeout=5) == 42
        assert [line.message for line in run.logs()] == ["doubling"]


def test_the_dashboard_s_command_asks_for_the_password(
    image: Image, dockerfile: Dockerfile, server: EmbeddedValkey, tmp_path: Path
) -> None:
    """The image's CMD serves the dashboard to who knows name and password, and the image's check finds it healthy."""
    port = free_port()
    own = {
        "RQ_DASHBOARD_BIND": "127.0.0.1",
        "RQ_DASHBOARD_PORT": str(port),
        "RQ_DASHBOARD_REDIS_URL": server.url,
        "RQ_DASHBOARD_USERNAME": "me",
        "RQ_DASHBOARD_PASSWORD": "secret",
    }
    env = image.environment("dashboard") | own
    check = json.loads(dockerfile.last("dashboard", "HEALTHCHECK").partition(" CMD ")[2])
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(dockerfile.command("dashboard"), cwd=tmp_path, env=env, stdout=log, stderr=log)
    try:
        until(lambda: process.poll() is not None or _status(port, "me:secret") == 200)
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert _status(port, "me:wrong") == 401
        assert _status(port, None) == 401
        assert subprocess.run(check, env=env, cwd=tmp_path).returncode == 0
    finally:
        process.terminate()
        process.wait()
    assert subprocess.run(check, env=env, cwd=tmp_path, stderr=subprocess.DEVNULL).returncode != 0


def _status(port: int, login: str | None) -> int | None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/")
    if login is not None:
        request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None

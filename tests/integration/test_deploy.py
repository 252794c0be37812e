"""The container files, linted, validated, and held against each other and against the settings."""

import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis

from dockerfile import Dockerfile, sources
from fleet import Fleet, until
from flowtilla import config
from flowtilla.units import parse_duration

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
TARGETS = ("worker", "dashboard")


@pytest.fixture(scope="module")
def dockerfile() -> Dockerfile:
    return Dockerfile.read(DEPLOY / "Dockerfile")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


@pytest.fixture(scope="module")
def version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def _tool(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is not installed"
    return found


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    """The Dockerfile is clean, its shell commands included."""
    linted = subprocess.run([_tool("hadolint"), DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_compose_file_obeys_the_compose_specification() -> None:
    """compose.yaml validates against the published schema."""
    command = [_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_workers_configuration_is_valid_and_its_modules_are_mounted(services: dict[str, Any]) -> None:
    """The workers' file loads, and what it lists is in the folder that compose mounts as their own."""
    settings = config.load(DEPLOY / "flowtilla.yaml", env={})
    mounts = dict(mount.split(":")[1::-1] for mount in services["worker"]["volumes"])
    assert mounts[services["worker"]["environment"]["FLOWTILLA_CONFIG"]] == "./flowtilla.yaml"
    for module in settings.services.worker.modules:
        assert (DEPLOY / mounts["/app"] / f"{module.replace('.', '/')}.py").is_file()
    assert any(Path(settings.storage.base_path).is_relative_to(inside) for inside in mounts if inside != "/app")


def test_a_container_has_longer_to_stop_than_its_worker(services: dict[str, Any]) -> None:
    """The worker ends within its grace by itself: nobody kills it before."""
    settings = config.load(DEPLOY / "flowtilla.yaml", env={})
    assert parse_duration(services["worker"]["stop_grace_period"]) >= settings.services.worker.grace + 5


def test_every_image_is_pinned(dockerfile: Dockerfile, services: dict[str, Any], version: str) -> None:
    """Each image has a tag that is not `latest`; our own carry the version of this distribution."""
    images = dockerfile.images | {service["image"] for service in services.values()}
    for image in images:
        _, _, tag = image.partition(":")
        assert tag[:1].isdigit(), image
    assert {services[name]["image"] for name in TARGETS} == {f"flowtilla-{name}:{version}" for name in TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_does_not_run_as_root(dockerfile: Dockerfile, target: str) -> None:
    """The user is given by number, which an orchestrator can check, and is not root."""
    assert dockerfile.last(target, "USER") == "10001:10001"
    assert dockerfile.last(target, "STOPSIGNAL") == "SIGTERM"
    assert dockerfile.last(target, "ENTRYPOINT") == '["tini", "--"]'
    assert "CMD" in dockerfile.last(target, "HEALTHCHECK")


def test_what_is_installed_is_pinned_and_leaves_no_cache(dockerfile: Dockerfile) -> None:
    """Every pip command keeps no cache, and every installation obeys the constraints."""
    runs = [rest for stage in dockerfile.stages.values() for keyword, rest in stage.steps if keyword == "RUN"]
    commands = [one for rest in runs for one in rest.split(" && ") if one.startswith("pip ")]
    assert len(commands) == 3
    for command in commands:
        assert "--no-cache-dir" in command
        assert "--constraint constraints.txt" in command or "--no-deps" in command


def test_the_context_holds_what_is_copied(dockerfile: Dockerfile) -> None:
    """.dockerignore lets through exactly what the Dockerfile copies."""
    steps = [step for stage in dockerfile.stages.values() for step in stage.steps]
    copied = {source for keyword, rest in steps if keyword == "COPY" for source in sources(rest)}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)


def test_compose_builds_the_targets_of_the_dockerfile(dockerfile: Dockerfile, services: dict[str, Any]) -> None:
    """Each of our services builds the stage of its name."""
    for name in TARGETS:
        build = services[name]["build"]
        assert (DEPLOY / build["context"]).resolve() == ROOT
        assert ROOT / build["dockerfile"] == DEPLOY / "Dockerfile"
        assert build["target"] == name
        assert name in dockerfile.stages


def test_workers_can_be_scaled(services: dict[str, Any]) -> None:
    """Nothing in the worker's service can exist only once."""
    assert not {"container_name", "ports", "hostname"} & set(services["worker"])


def test_the_queue_forgets_nothing_and_is_not_published(services: dict[str, Any]) -> None:
    """Redis appends to a file on a named volume, never evicts, is waited for, and is no port of the host."""
    redis = services["redis"]
    assert redis["command"][:2] == ["sh", "/etc/redis/redis.sh"]
    options = dict(zip(redis["command"][2::2], redis["command"][3::2], strict=True))
    assert (options["--appendonly"], options["--maxmemory-policy"]) == ("yes", "noeviction")
    assert redis["volumes"][0] == "redis:/data"
    for mount in redis["volumes"][1:]:
        source, inside, mode = mount.split(":")
        assert (DEPLOY / source).is_file()
        assert (inside, mode) == (f"/etc/redis/{Path(source).name}", "ro")
    assert "ports" not in redis
    for name in TARGETS:
        assert services[name]["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_the_dashboard_is_on_loopback_behind_a_password(dockerfile: Dockerfile, services: dict[str, Any]) -> None:
    """It is published on this machine only, and compose refuses to start it without name and password."""
    dashboard = services["dashboard"]
    assert all(port.startswith("127.0.0.1:") for port in dashboard["ports"])
    for name in ("USERNAME", "PASSWORD"):
        assert dashboard["environment"][f"RQ_DASHBOARD_{name}"].startswith(f"${{DASHBOARD_{name}:?")
    assert "rq-dashboard --json --disable-delete" in dockerfile.command("dashboard")[-1]


def test_each_service_has_a_user_of_redis_of_its_own(services: dict[str, Any]) -> None:
    """With a password that compose asks for, and that stands in no file."""
    named = {"worker": "FLOWTILLA__REDIS__URL", "dashboard": "RQ_DASHBOARD_REDIS_URL"}
    for user, variable in named.items():
        password = f"REDIS_{user.upper()}_PASSWORD"
        assert services[user]["environment"][variable] == f"redis://{user}:${{{password}}}@redis:6379/0"
        assert services["redis"]["environment"][password].startswith(f"${{{password}:?")
    users = [line.split()[1:4] for line in (DEPLOY / "users.acl").read_text().splitlines()]
    passwords = [[name, "on", f"#REDIS_{name.upper()}_PASSWORD"] for name in ("worker", "producer", "dashboard")]
    assert users == [["default", "on", "nopass"], *passwords]


@pytest.mark.parametrize("given", [{}, {"RQ_DASHBOARD_USERNAME": "me"}, {"RQ_DASHBOARD_PASSWORD": "secret"}])
def test_the_dashboard_s_image_does_not_start_without_a_password(
    dockerfile: Dockerfile, tmp_path: Path, given: dict[str, str]
) -> None:
    """Run by hand the image refuses too, before it listens; half of a login is none."""
    # Stands where the real one would: it must not be reached.
    reached = tmp_path / "rq-dashboard"
    reached.write_text("#!/bin/sh\necho listening\n")
    reached.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    command = dockerfile.command("dashboard")
    both = {"RQ_DASHBOARD_USERNAME": "me", "RQ_DASHBOARD_PASSWORD": "secret"}
    assert "listening" in subprocess.run(command, env=environment | both, capture_output=True, text=True).stdout
    refused = subprocess.run(command, env=environment | given, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "must be set" in refused.stderr
    assert refused.stdout == ""


def test_the_worker_s_health_is_that_of_a_worker_on_this_host(fleet: Fleet, redis: Redis) -> None:
    """Unhealthy before a worker is there, healthy while it beats, unhealthy once it has gone or fallen silent."""
    assert _health(fleet.url) == (1, "no worker beats here\n")
    fleet.start("first")
    until(lambda: _health(fleet.url) == (0, "a worker beats here\n"))
    fleet.kill("first", signal.SIGTERM)
    assert fleet.ended("first") == 0
    assert _health(fleet.url) == (1, "no worker beats here\n")

    fleet.start("second")
    until(lambda: _health(fleet.url)[0] == 0)
    fleet.kill("second", signal.SIGKILL)
    fleet.ended("second")
    redis.hset("rq:worker:second", "last_heartbeat", "2026-01-01T00:00:00.000000Z")
    assert _health(fleet.url) == (1, "no worker beats here\n")


def _health(url: str) -> tuple[int, str]:
    checked = subprocess.run(
        [sys.executable, DEPLOY / "healthcheck.py"],
        env={"FLOWTILLA__REDIS__URL": url},
        capture_output=True,
        text=True,
    )
    return checked.returncode, checked.stdout

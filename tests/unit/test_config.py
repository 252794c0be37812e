"""Where settings come from, and how errors in them are told."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from flowtilla.config import DEV_FILE, load, shown
from flowtilla.errors import ConfigurationError
from flowtilla.settings import Settings

# The configuration example of Flowdapt's documentation of executors, verbatim.
FLOWDAPT = """\
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


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(text: str, name: str = "flowtilla.yaml") -> str:
    Path(name).write_text(text)
    return name


def complaint(path: str | None = None, env: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(path, env=env or {})
    return str(caught.value)


def test_nothing_configured_gives_the_defaults(folder: Path) -> None:
    """Without a file and variables the settings are the defaults, with the storage in the working directory."""
    settings = load(env={})

    assert settings.redis == Settings().redis
    assert settings.services == Settings().services
    assert settings.storage.base_path == str(folder / ".flowtilla/storage")


def test_flowdapts_example_is_read_verbatim() -> None:
    """The configuration example this project started from parses, and the executor's keys are the executor's own."""
    executor = load(written(FLOWDAPT, "executors.yaml"), env={}).services.compute.executor

    assert executor.target == "flowdapt.compute.executor.ray.RayExecutor"
    assert executor.options == {
        "log_to_driver": True,
        "env_vars": {"OMP_NUM_THREADS": 1},
        "gpus": 1,
        "cpus": 2,
        "memory": "8GB",
        "resources": {"hamster_wheels": 6},
    }


def test_overrides_go_before_environment_before_file_before_defaults() -> None:
    """Each source gives only the keys that no source before it has."""
    file = written("services: {worker: {concurrency: 1, grace: 1s, queues: [file]}}\nretention: 1h")
    env = {"FLOWTILLA__SERVICES__WORKER__CONCURRENCY": "2", "FLOWTILLA__SERVICES__WORKER__GRACE": "2s"}

    settings = load(file, env=env, overrides={"services": {"worker": {"concurrency": 3}}})

    worker = settings.services.worker
    assert (worker.concurrency, worker.grace, worker.queues, worker.lease) == (3, 2.0, ("file",), 10.0)
    assert settings.retention == 3600


def test_the_file_is_named_by_argument_else_by_variable_else_found() -> None:
    """The path given goes before FLOWTILLA_CONFIG, which goes before ./flowtilla.yaml."""
    written("retention: 1")
    written("retention: 2", "two.yaml")
    written('{"retention": 3}', "three.json")

    assert load(env={}).retention == 1
    assert load(env={"FLOWTILLA_CONFIG": "two.yaml"}).retention == 2
    assert load("three.json", env={"FLOWTILLA_CONFIG": "two.yaml"}).retention == 3


def test_variables_are_read_as_yaml_values() -> None:
    """Numbers, lists, mappings and null in a variable are what they look like, and the rest is text."""
    prefix = "FLOWTILLA__SERVICES__COMPUTE__EXECUTOR__"
    env = {
        f"{prefix}CPUS": "4",
        f"{prefix}TARGET": "null",
        f"{prefix}ADDRESS": "ray://head:10001",
        f"{prefix}RESOURCES": "{hamster_wheels: 6}",
        f"{prefix}ENV_VARS__OMP_NUM_THREADS": "1",
        "FLOWTILLA__SERVICES__WORKER__QUEUES": "[high, default]",
        "FLOWTILLA__SERVICES__WORKER": "{queues: [low], grace: 5s}",
        "FLOWTILLA__REDIS__URL": "",
    }

    services = load(env=env).services

    assert services.compute.executor.target is None
    assert services.compute.executor.options == {
        "cpus": 4,
        "address": "ray://head:10001",
        "resources": {"hamster_wheels": 6},
        "env_vars": {"OMP_NUM_THREADS": 1},
    }
    assert (services.worker.queues, services.worker.grace) == (("high", "default"), 5.0)


def test_this_processs_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `env`, the variables are this process's."""
    monkeypatch.setenv("FLOWTILLA__LOGGING__LEVEL", "debug")

    assert load().logging.level == "DEBUG"


def test_an_unknown_key_in_the_file_is_told_with_its_line_and_a_suggestion() -> None:
    """A misspelt key is refused with file, line, path and the key that was probably meant."""
    said = complaint(written("services:\n  worker:\n    concurency: 4\n"))

    assert "flowtilla.yaml:3: services.worker.concurency: unknown key; did you mean 'concurrency'?" in said


def test_an_unknown_variable_is_told_by_its_name() -> None:
    """A misspelt variable is refused under its full name."""
    said = complaint(env={"FLOWTILLA__SERVICES__WORKER__LEESE": "5s"})

    assert "FLOWTILLA__SERVICES__WORKER__LEESE" in said
    assert "services.worker.leese: unknown key; did you mean 'lease'?" in said


def test_every_problem_is_told_under_its_own_source() -> None:
    """Problems of the file and of the environment come in one error, each under what it is in."""
    said = complaint(written("foo: 1\nretention: soon"), {"FLOWTILLA__LOGGING__LEVEL": "loud"})

    assert "flowtilla.yaml:1: foo: unknown key; known here:" in said
    assert "flowtilla.yaml:2: retention: 'soon' is not a duration" in said
    assert "variable FLOWTILLA__LOGGING__LEVEL is not valid:\n  logging.level: should be 'DEBUG'" in said


def test_a_contradiction_between_settings_names_both() -> None:
    """A heartbeat that does not fit the lease is refused, though each alone would do."""
    said = complaint(written("services: {worker: {lease: 5s}}"), {"FLOWTILLA__SERVICES__WORKER__HEARTBEAT": "4s"})

    assert "heartbeat (4s) must be at most half of lease (5s)" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "flowtilla.yaml:2:1: while parsing a flow sequence"),
        ("redis: {}\nredis: {}", "flowtilla.yaml:2:1: key 'redis' occurs twice; first on line 1"),
        ("- a", "flowtilla.yaml: holds a list, where a mapping is expected"),
        ("redis: 5", "flowtilla.yaml:1: redis: should be a valid dictionary"),
    ],
)
def test_a_file_that_is_no_mapping_is_told_with_its_place(text: str, said: str) -> None:
    """What does not parse or is no mapping is refused with file, line and column."""
    assert said in complaint(written(text + "\n"))


def test_a_named_file_that_is_missing_is_an_error(folder: Path) -> None:
    """A file that was asked for must be there; the message says where it was looked for."""
    assert complaint("nowhere.yaml") == f"nowhere.yaml: there is no such file; the working directory is {folder}"


def test_an_empty_file_configures_nothing() -> None:
    """A file of comments only is fine."""
    assert load(written("# nothing yet\n"), env={}).redis == Settings().redis


def test_storage_paths_are_absolute_for_local_disks_only(folder: Path) -> None:
    """A relative local path counts from the working directory; a bucket's name is left alone."""
    assert load(env={"FLOWTILLA__STORAGE__BASE_PATH": "data"}).storage.base_path == str(folder / "data")
    assert load(env={"FLOWTILLA__STORAGE": "{protocol: s3, base_path: lake}"}).storage.base_path == "lake"


SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"redis: {{url: 'http://:{SECRET}@host'}}",
        f"redis: {{url: 'redis://:{SECRET}/@host:1/0'}}",
        f"redis: {{url: ['redis://:{SECRET}@host']}}",
        f"redis: 'redis://:{SECRET}@host'",
        f"storage: {SECRET}",
        f"storage: {{parameters: {SECRET}}}",
        f"services: [{{env_vars: {{API_TOKEN: {SECRET}}}}}]",
    ],
)
def test_no_error_tells_a_secret(text: str) -> None:
    """Whatever is wrong with a setting that holds a secret, neither the message nor its cause repeats it."""
    with pytest.raises(ConfigurationError) as caught:
        load(written(text), env={})

    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_error_tells_a_secret_of_the_environment() -> None:
    """A password in a variable that cannot be read is not repeated either."""
    assert SECRET not in complaint(env={"FLOWTILLA__REDIS__URL": f"htp://:{SECRET}@host"})
    assert SECRET not in complaint(env={"FLOWTILLA__REDIS": f"redis://:{SECRET}@host"})


def test_shown_settings_and_reprs_hold_no_secret() -> None:
    """Passwords, storage parameters and tokens are masked; hosts, users and other values stay readable."""
    settings = load(
        written(
            f"""
            redis: {{url: 'redis://fleet:{SECRET}@host:1/0?password={SECRET}'}}
            storage: {{parameters: {{key: {SECRET}, client_kwargs: {{nested: [{SECRET}]}}}}}}
            services:
              compute:
                executor: {{cpus: 2, address: 'tcp://me:{SECRET}@head', env_vars: {{API_TOKEN: {SECRET}, OMP: 1}}}}
            """
        ),
        env={},
    )

    data = shown(settings)

    assert SECRET not in json.dumps(data) + repr(settings) + str(settings)
    assert data["redis"]["url"] == "redis://fleet:**********@host:1/0?password=**********"
    assert data["services"]["compute"]["executor"]["address"] == "tcp://me:**********@head"
    assert data["services"]["compute"]["executor"]["env_vars"] == {"API_TOKEN": "**********", "OMP": 1}


def announce(pid: int) -> None:
    DEV_FILE.parent.mkdir()
    DEV_FILE.write_text(json.dumps({"pid": pid, "url": "redis://127.0.0.1:7/0"}))


def test_a_running_dev_gives_the_redis_when_nothing_else_does() -> None:
    """The server of `flowtilla dev` in this folder is found, and goes behind every other source."""
    announce(os.getpid())

    assert load(env={}).redis.url.get_secret_value() == "redis://127.0.0.1:7/0"
    assert load(written("redis: {url: 'redis://h'}"), env={}).redis.url.get_secret_value() == "redis://h"


def test_a_dev_that_has_ended_is_not_believed() -> None:
    """What `flowtilla dev` left behind when it was killed names no server any more."""
    with subprocess.Popen(["true"]) as ended:
        pass
    announce(ended.pid)

    assert load(env={}).redis == Settings().redis

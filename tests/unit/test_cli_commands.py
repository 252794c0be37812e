"""The command line without a server: files, configuration, help, and how errors end."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from flowtilla import errors
from flowtilla.cli.app import app
from flowtilla.cli.exits import code_of
from flowtilla.cli.options import mapping_of

GOOD = """\
kind: workflow
metadata: {name: diamond}
spec:
  stages:
    - {name: top, target: m.f}
    - {name: left, target: m.f, depends_on: [top]}
    - {name: right, target: m.f, depends_on: [top]}
"""

Flowtilla = Callable[..., Result]


@pytest.fixture
def flowtilla(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flowtilla:
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_validate_says_what_the_file_holds(flowtilla: Flowtilla) -> None:
    """A good file's stages and final stages are listed."""
    Path("w.yaml").write_text(GOOD)

    result = flowtilla("validate", "w.yaml")

    assert result.exit_code == 0
    assert result.stdout == "w.yaml: workflow diamond is valid\nstages: top, left, right\nfinal:  left, right\n"


def test_validate_prints_one_json_document(flowtilla: Flowtilla) -> None:
    """With --json standard output is data."""
    Path("w.yaml").write_text(GOOD)

    result = flowtilla("validate", "w.yaml", "--json")

    expected = {"workflow": "diamond", "stages": ["top", "left", "right"], "final": ["left", "right"]}
    assert json.loads(result.stdout) == expected


def test_a_bad_file_is_one_sentence_and_code_2(flowtilla: Flowtilla) -> None:
    """A broken rule is told on standard error, without a traceback."""
    Path("w.yaml").write_text(GOOD.replace("[top]}", "[tpo]}", 1))

    result = flowtilla("validate", "w.yaml")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "error: w.yaml is not valid:\n"
        "  w.yaml:6: spec: stages[1].depends_on[0]: no stage is named 'tpo'; did you mean 'top'?\n"
    )


def test_config_show_prints_what_can_be_read_again(flowtilla: Flowtilla) -> None:
    """The settings are printed as YAML, secrets masked, as JSON with --json."""
    Path("flowtilla.yaml").write_text("redis: {url: 'redis://:hunter2@h'}\nservices: {worker: {grace: 5s}}")

    shown = yaml.safe_load(flowtilla("config", "show").stdout)

    assert shown["redis"]["url"] == "redis://:**********@h"
    assert shown["services"]["worker"]["grace"] == 5.0
    assert json.loads(flowtilla("config", "show", "--json").stdout) == shown


def test_config_show_reads_the_file_it_is_given(flowtilla: Flowtilla) -> None:
    """--config names the file; one that is missing is code 2."""
    Path("other.yaml").write_text("retention: 5s")

    assert yaml.safe_load(flowtilla("config", "show", "--config", "other.yaml").stdout)["retention"] == 5.0
    assert flowtilla("config", "show", "--config", "none.yaml").exit_code == 2


def test_a_misspelt_setting_is_code_2(flowtilla: Flowtilla, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable with an unknown key is told with the key that was meant."""
    monkeypatch.setenv("FLOWTILLA__SERVICES__WORKER__CONCURENCY", "4")

    result = flowtilla("config", "show")

    assert result.exit_code == 2
    assert "did you mean 'concurrency'?" in result.stderr


def test_a_redis_that_is_away_is_code_4(flowtilla: Flowtilla, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submitting without a Redis says which one is away, never its password, and enqueues nothing."""
    monkeypatch.setenv("FLOWTILLA__REDIS__URL", "redis://:hunter2@127.0.0.1:1/0")
    Path("w.yaml").write_text(GOOD)

    for command in (["submit", "w.yaml"], ["runs"], ["status", "x"], ["logs", "x"], ["worker"], ["workers"]):
        result = flowtilla(*command)
        assert result.exit_code == 4, command
        assert "127.0.0.1:1" in result.stderr
        assert "hunter2" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "w.yaml", "-i", "n"],
        ["submit", "w.yaml", "-i", "=5"],
        ["submit", "w.yaml", "-i", "@none.json"],
        ["submit", "w.yaml", "--at", "tomorrow"],
        ["submit", "w.yaml", "--delay", "soon"],
        ["submit", "w.yaml", "--timeout", "-5"],
        ["submit", "w.yaml", "--wait", "--wait-timeout", "long"],
        ["submit", "w.yaml", "--namespace", "../x"],
        ["submit", "w.yaml", "--run-id", "a", "--idempotency-key", "b"],
        ["submit", "none.yaml"],
        ["runs", "--state", "gone"],
        ["runs", "--limit", "0"],
        ["status", "a/b"],
        ["artifacts", "ls", "--namespace", "a\\b"],
        ["worker", "-n", "0"],
        ["worker", "-q", "a b"],
        ["nonsense"],
    ],
)
def test_bad_input_is_code_2(flowtilla: Flowtilla, arguments: list[str]) -> None:
    """Whatever is wrong with what was typed, it is told on standard error before anything happens."""
    Path("w.yaml").write_text(GOOD)

    result = flowtilla(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr
    assert "Traceback" not in result.stderr


def test_what_was_not_expected_shows_its_traceback(flowtilla: Flowtilla, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors that are not ours are not dressed up."""
    monkeypatch.setattr("flowtilla.loading.load_workflow", lambda path: 1 / 0)

    assert isinstance(flowtilla("validate", "w.yaml").exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RunFailed("m", run_id="r"), 1),
        (errors.RunQuarantined("m", run_id="r"), 1),
        (errors.RunCancelled("m", run_id="r"), 1),
        (errors.WorkerNameTaken(), 1),
        (errors.InvalidWorkflow(), 2),
        (errors.InvalidName(), 2),
        (errors.ConfigurationError(), 2),
        (errors.MessageTooLarge(), 2),
        (errors.RunError("m", run_id="r"), 2),
        (errors.RunNotFound("m", run_id="r"), 3),
        (errors.ArtifactNotFound(), 3),
        (errors.QueueUnavailable(), 4),
        (errors.StorageError(), 4),
        (errors.RunNotFinished("m", run_id="r"), 5),
    ],
)
def test_exit_codes(error: errors.FlowtillaError, code: int) -> None:
    """Scripts can tell by the code what went wrong."""
    assert code_of(error) == code


def test_inputs_are_read_as_values(tmp_path: Path) -> None:
    """Numbers, lists and null are read, text stays text, a file gives a whole mapping, later keys win."""
    (tmp_path / "more.json").write_text('{"n": 1, "m": {"deep": true}}')

    found = mapping_of(
        [f"@{tmp_path}/more.json", "n=5", "names=[a,b]", "x=null", "when=12:30", "eq=a=b", "empty="], "--input"
    )

    assert found == {
        "n": 5,
        "m": {"deep": True},
        "names": ["a", "b"],
        "x": None,
        "when": "12:30",
        "eq": "a=b",
        "empty": "",
    }


def test_a_word_that_is_no_pair_is_refused() -> None:
    """The message repeats the word."""
    with pytest.raises(typer.BadParameter, match="'5' is neither key=value nor @file"):
        mapping_of(["5"], "--input")


def test_version_and_help(flowtilla: Flowtilla) -> None:
    """Every command can be asked what it does, and the whole for its version."""
    assert flowtilla("--version").stdout.strip().count(".") == 2
    commands = "submit validate worker workers runs status logs cancel retry artifacts dev"
    for command in commands.split():
        result = flowtilla(command, "--help")
        assert result.exit_code == 0
        assert f"flowtilla {command}" in result.stdout or f"{command} [OPTIONS]" in result.stdout


def test_help_imports_nothing_heavy() -> None:
    """`--help` and completion need no Redis client, no storage and no executor."""
    heavy = {"redis", "rq", "fsspec", "yaml", "flowtilla_worker", "flowtilla_executors", "numpy"}
    code = "import sys, flowtilla.cli.app; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "typer" in loaded
    assert not heavy & set(loaded)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_complete(shell: str) -> None:
    """A completion script is printed for the common shells, and completing names the commands."""
    command = str(Path(sys.executable).with_name("flowtilla"))
    # Else typer asks the process tree which shell this is, and heeds no argument.
    asked = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = subprocess.run(
        [command, "--show-completion", shell], capture_output=True, text=True, check=True, env=asked
    ).stdout
    words = {"_FLOWTILLA_COMPLETE": "complete_bash", "COMP_WORDS": "flowtilla s", "COMP_CWORD": "1"}
    completed = subprocess.run([command], capture_output=True, text=True, env=os.environ | words).stdout

    assert "_FLOWTILLA_COMPLETE" in script
    assert completed.split() == ["submit", "status"]

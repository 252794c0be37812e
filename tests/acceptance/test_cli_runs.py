"""The real command line, against a real server and a real worker."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet import until
from flowtilla_worker.dev.embedded import EmbeddedValkey

STAGES = """
import logging, time
from pathlib import Path
from flowtilla import artifacts, context

def numbers(n=3, names=(), text=""):
    print("numbering", n)
    return list(range(n))

def square(x):
    logging.getLogger("squares").warning("squaring %s", x)
    return x * x

def total(xs):
    artifacts.put("summary", {"total": sum(xs)})
    return sum(xs)

def settings(n=0):
    return context().config

def boom(x):
    raise ValueError("no squares today")

def hang(seconds=600):
    print("hanging", flush=True)
    time.sleep(seconds)
"""


def workflow(name: str, *stages: str) -> str:
    lines = "".join(f"    - {stage}\n" for stage in stages)
    return f"kind: workflow\nmetadata: {{name: {name}}}\nspec:\n  stages:\n{lines}"


WORKFLOWS = {
    "squares": workflow(
        "squares",
        "{name: numbers, target: stages.numbers}",
        "{name: square, target: stages.square, type: parameterized, depends_on: [numbers]}",
        "{name: total, target: stages.total, depends_on: [square]}",
    ),
    "fails": workflow(
        "fails",
        "{name: numbers, target: stages.numbers}",
        "{name: boom, target: stages.boom, depends_on: [numbers]}",
    ),
    "settings": workflow("settings", "{name: settings, target: stages.settings}"),
    "hangs": workflow("hangs", "{name: hang, target: stages.hang}"),
}


class Shell:
    """Runs `flowtilla` in a folder, as a person would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = str(Path(sys.executable).with_name("flowtilla"))

    def __call__(self, *arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [self.program, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=60, env=clean()
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)

    @contextmanager
    def started(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen([self.program, *arguments], cwd=self.folder, env=clean(), **pipes) as process:
            try:
                yield process
            finally:
                process.kill()


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FLOWTILLA")}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A folder with stages and workflows, where `flowtilla dev` runs."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "stages.py").write_text(STAGES)
    (folder / "flowtilla.yaml").write_text("services: {compute: {executor: {target: local, cpus: 2}}}")
    for name, text in WORKFLOWS.items():
        (folder / f"{name}.yaml").write_text(text)
    shell = Shell(folder)
    with (folder / "dev.log").open("w") as log:
        dev = subprocess.Popen(
            [shell.program, "dev", "--no-dashboard"], cwd=folder, stdout=log, stderr=log, env=clean()
        )
    try:
        until(lambda: "listens on" in (folder / "dev.log").read_text())
        yield shell
    finally:
        # Twice, for a run that hangs would be waited for.
        dev.terminate()
        until(lambda: "asked to stop" in (folder / "dev.log").read_text())
        dev.terminate()
        dev.wait(30)


def test_submit_prints_the_id_only(shell: Shell) -> None:
    """A script gets the run's id, and nothing else, on standard output."""
    run_id = shell("submit", "squares.yaml", "-i", "n=2").stdout

    assert re.fullmatch(r"default--[0-9a-f]{32}\n", run_id)
    until(lambda: shell.json("status", run_id.strip())["state"] == "finished")


def test_wait_prints_the_result_and_shows_progress(shell: Shell) -> None:
    """The result goes to standard output, each stage's progress to standard error, without a terminal too."""
    done = shell("submit", "squares.yaml", "-i", "n=5", "--wait")

    assert done.stdout == "30\n"
    assert "square finished 5/5" in done.stderr
    assert done.stderr.endswith("squares finished\n")


def test_wait_draws_a_bar_per_stage_on_a_terminal(shell: Shell) -> None:
    """On a terminal, the run and each of its stages have a bar."""
    import pty

    terminal, end = pty.openpty()
    command = [shell.program, "submit", "squares.yaml", "-i", "n=4", "--wait"]
    with subprocess.Popen(command, cwd=shell.folder, stdout=end, stderr=end, env=clean() | {"TERM": "xterm"}) as done:
        os.close(end)
        drawn = b""
        try:
            while piece := os.read(terminal, 4096):
                drawn += piece
        except OSError:
            pass  # Linux says so when the other end has closed.
    os.close(terminal)

    assert done.returncode == 0
    for said in ("━", "numbers", "4/4 finished", "3/3 stages, finished"):
        assert said in drawn.decode()


def test_follow_prints_the_log_as_it_comes(shell: Shell) -> None:
    """With --follow, standard output is the log, and the command ends with the run."""
    done = shell("submit", "squares.yaml", "-i", "n=2", "--follow")

    assert "numbers | numbering 2" in done.stdout
    assert "square[1] | WARNING: squaring 1" in done.stdout


def test_wait_and_follow_show_both(shell: Shell) -> None:
    """With both, progress and log share standard error, and standard output is the result."""
    done = shell("submit", "squares.yaml", "-i", "n=2", "--wait", "--follow")

    assert done.stdout == "1\n"
    assert "squaring 1" in done.stderr
    assert "total finished" in done.stderr


def test_wait_with_json_is_one_document(shell: Shell) -> None:
    """Record and result come as one JSON document."""
    document = shell.json("submit", "squares.yaml", "-i", "n=3", "--tag", "a", "--tag", "b", "--wait", "--follow")

    assert (document["state"], document["result"], document["tags"]) == ("finished", 5, ["a", "b"])
    assert document["stages"]["square"]["done"] == 3
    assert document["progress"] == {"done": 3, "total": 3}


def test_set_reaches_the_stages(shell: Shell) -> None:
    """--set is what stages read in context().config."""
    document = shell.json("submit", "settings.yaml", "--set", "level=3", "--set", "deep={a: [1]}", "--wait")

    assert document["result"] == {"level": 3, "deep": {"a": [1]}}


def test_a_run_that_fails_is_code_1_with_the_traceback(shell: Shell) -> None:
    """The original error and its traceback are on standard error; nothing is on standard output."""
    done = shell("submit", "fails.yaml", "--wait", code=1)

    assert done.stdout == ""
    assert "error: run " in done.stderr
    assert "failed in stage 'boom': ValueError: no squares today" in done.stderr
    assert 'stages.py", line' in done.stderr
    assert shell.json("submit", "fails.yaml", "--wait", code=1)["error"]["stage"] == "boom"


def test_status_and_retry_show_why_it_failed(shell: Shell) -> None:
    """Both name the stage, and give the original traceback."""
    run_id = shell.json("submit", "fails.yaml", "--wait", code=1)["id"]

    status = shell("status", run_id).stdout
    retried = shell("retry", run_id).stdout

    for said in (status, retried):
        assert "stage boom: ValueError: no squares today" in said
        assert "Traceback (most recent call last)" in said
    assert re.search(r"numbers +finished +1/1", status)
    until(lambda: shell.json("status", run_id)["attempt"] == 2)
    assert shell.json("status", run_id)["stages"]["numbers"]["attempt"] == 1


def test_a_wait_that_is_over_is_code_5(shell: Shell) -> None:
    """The run goes on, and the message says how to come back; cancelling then ends it."""
    done = shell("submit", "hangs.yaml", "-i", "seconds=60", "--wait", "--wait-timeout", "500ms", code=5)

    run_id = re.findall(r"flowtilla status (default--[0-9a-f]{32})", done.stderr)[0]
    assert shell.json("status", run_id)["state"] == "running"
    shell("cancel", run_id)
    until(lambda: shell.json("status", run_id)["state"] == "cancelled")
    shell("retry", run_id)
    shell("cancel", run_id)


@pytest.mark.parametrize("flag", ["--wait", "--follow"])
def test_ctrl_c_leaves_the_run_alone(shell: Shell, flag: str) -> None:
    """Interrupting the watching says how to come back, exits with 130, and does nothing to the run."""
    run_id = f"default--ctrl-c{flag}"
    with shell.started("submit", "hangs.yaml", "--run-id", run_id, flag) as watching:
        assert watching.stdout and watching.stderr
        seen, sign = (watching.stderr, "hangs running") if flag == "--wait" else (watching.stdout, "hanging")
        assert any(sign in line for line in iter(seen.readline, ""))
        watching.send_signal(signal.SIGINT)
        said = watching.stderr.read()
        watching.wait()

    assert watching.returncode == 130
    assert f"come back with: flowtilla status {run_id}" in said
    assert "Traceback" not in said
    assert shell.json("status", run_id)["state"] == "running"
    shell("cancel", run_id)


def test_a_redis_that_goes_away_while_waiting_is_code_4(shell: Shell, tmp_path: Path) -> None:
    """The message says which Redis, and how to come back to the run when it is there again."""
    with EmbeddedValkey(tmp_path, persistent=True) as server:
        (tmp_path / "flowtilla.yaml").write_text(f"redis: {{url: '{server.url}'}}")
        waits = ("submit", "squares.yaml", "--wait", "--run-id", "left", "--config", str(tmp_path / "flowtilla.yaml"))
        with shell.started(*waits) as watching:
            assert watching.stderr
            assert any("squares queued" in line for line in iter(watching.stderr.readline, ""))
            server.stop()
            said = watching.stderr.read()
            watching.wait()

    assert watching.returncode == 4
    assert server.url.removeprefix("redis://").removesuffix("/0") in said
    assert "come back with: flowtilla status default--left" in said
    assert "Traceback" not in said


def test_logs_are_lines_of_text_or_of_json(shell: Shell) -> None:
    """The log of a run that has ended is whole; with --json each line is an object."""
    run_id = shell.json("submit", "squares.yaml", "-i", "n=2", "--wait")["id"]

    assert "squaring 1" in shell("logs", run_id).stdout
    lines = [json.loads(line) for line in shell("logs", run_id, "-f", "--json").stdout.splitlines()]
    assert {(line["stage"], line["item"], line["message"]) for line in lines} == {
        ("numbers", None, "numbering 2"),
        ("square", 0, "squaring 0"),
        ("square", 1, "squaring 1"),
    }


def test_runs_are_listed_and_filtered(shell: Shell) -> None:
    """Namespace, state and limit choose among the runs; a table or JSON shows them whole."""
    ids = [shell.json("submit", "squares.yaml", "--namespace", "listed", "--wait")["id"] for _ in range(3)]
    shell.json("submit", "fails.yaml", "--namespace", "listed", "--wait", code=1)

    found = shell.json("runs", "--namespace", "listed", "--state", "finished", "--limit", "2")

    assert [run["id"] for run in found] == [ids[2], ids[1]]
    table = shell("runs", "--namespace", "listed").stdout.splitlines()
    assert table[0].split()[:3] == ["RUN", "STATE", "STAGES"]
    assert len(table) == 5
    assert all(len(line.split()[0].partition("--")[2]) == 32 for line in table[1:])


def test_the_same_key_gives_the_same_run(shell: Shell) -> None:
    """A second submit with an idempotency key prints the first run's id."""
    first, second = (shell("submit", "squares.yaml", "--idempotency-key", "once").stdout for _ in range(2))

    assert first == second


def test_a_run_that_waits_for_its_turn_says_so(shell: Shell) -> None:
    """`--concurrency` lets one begin when the other has ended; until then `status` and `runs` say what it waits for."""
    first, second = (shell.json("submit", "hangs.yaml", "--concurrency", "hanging=1")["id"] for _ in range(2))

    until(lambda: shell.json("status", second)["waits_for"] == "key:hanging")
    shown = "waits for  its turn: as many of key:hanging run as may at once"
    assert shown in shell("status", second).stdout.splitlines()
    assert "waits for key:hanging" in shell("runs", "--state", "queued").stdout

    shell("cancel", first)
    until(lambda: shell.json("status", second)["state"] == "running")
    shell("cancel", second)
    assert "may have 1 run at once" in shell("submit", "hangs.yaml", "--concurrency", "hanging=0", code=2).stderr


def test_a_full_queue_is_code_4(shell: Shell) -> None:
    """Nothing was queued, and the message says what to do."""
    config = {"limits": {"queues": {"nobodys": {"max_queued": 1}}}}
    (shell.folder / "limited.yaml").write_text(json.dumps(config))
    submit = ("submit", "squares.yaml", "--queue", "nobodys", "--config", "limited.yaml")
    run = shell(*submit).stdout.strip()

    refused = shell(*submit, code=4)

    assert refused.stdout == ""
    assert "queue 'nobodys' has 1 run waiting, as many as may (limits.queues.nobodys.max_queued)" in refused.stderr
    shell("cancel", run)
    shell("cancel", shell(*submit).stdout.strip())


def test_a_delayed_run_waits(shell: Shell) -> None:
    """--delay and --at keep a run queued until their time."""
    for when in (["--delay", "1h"], ["--at", "2999-01-31T12:00"]):
        run = shell.json("submit", "squares.yaml", *when)
        assert run["state"] == "queued"
        shell("cancel", run["id"])
        assert shell.json("status", run["id"])["state"] == "cancelled"


def test_artifacts_are_listed_fetched_and_removed(shell: Shell, tmp_path: Path) -> None:
    """What a stage stored can be seen, copied to a file or to standard output, and removed."""
    shell("submit", "squares.yaml", "-i", "n=5", "--namespace", "kept", "--wait")

    (listed,) = shell.json("artifacts", "ls", "--namespace", "kept")
    assert (listed["name"], listed["format"]) == ("summary", "json")
    assert "summary" in shell("artifacts", "ls", "--all").stdout
    target = shell("artifacts", "get", "summary", "--namespace", "kept", "-o", str(tmp_path)).stdout.strip()
    assert json.loads(Path(target).read_text()) == {"total": 30}
    assert json.loads(shell("artifacts", "get", "summary", "--namespace", "kept", "-o", "-").stdout) == {"total": 30}

    shell("artifacts", "rm", "summary", "--namespace", "kept")

    assert shell.json("artifacts", "ls", "--namespace", "kept") == []
    for command in ("get", "rm"):
        assert "has no 'summary'" in shell("artifacts", command, "summary", "--namespace", "kept", code=3).stderr


@pytest.mark.parametrize("command", ["status", "logs", "cancel", "retry"])
def test_an_unknown_run_is_code_3(shell: Shell, command: str) -> None:
    """The message names the run."""
    assert "there is no run default--nobody" in shell(command, "nobody", code=3).stderr

"""The examples, run as their READMEs say, in copies of their folders: what they print, compute and leave."""

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from documents import blocks
from fleet import until

EXAMPLES = Path(__file__).parents[2] / "examples"

#: More than a small search takes on a busy machine, its cluster's start included.
PATIENCE = 150.0

#: Fewer candidates than in the example, the best one among them.
SVM = {"C": [1, 10], "gamma": [0.0005, 0.001]}
NEIGHBOURS = {"n_neighbors": [1, 3]}
GRID = {"grid": [{"model": ["svm"]} | SVM, {"model": ["neighbours"]} | NEIGHBOURS]}


class Example:
    """A copy of an example's folder, in which commands run with nothing of ours on their path.

    Every process that they start inherits `mark` in the environment, whatever session it makes.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder / name
        shutil.copytree(EXAMPLES / name, self.folder, ignore=shutil.ignore_patterns(".flowtilla", "__pycache__"))
        self.mark = f"EXAMPLE_MARK={folder}"
        variable, _, value = self.mark.partition("=")
        self.env = os.environ | {variable: value, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        self._output = folder / "output.txt"

    @property
    def output(self) -> str:
        return self._output.read_text()

    def readme(self, language: str) -> list[str]:
        """The README's blocks of a language."""
        return blocks(f"examples/{self.folder.name}/README.md", language)

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        """Starts a Python command in the folder."""
        with self._output.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, *command],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, *command: str) -> str:
        """Runs a command to its end, which must be a good one, and returns what it printed."""
        assert self.start(*command).wait(PATIENCE) == 0, self.output
        return self.output

    def command(self, *command: str) -> str:
        """Returns what a command prints, as `run`, beside one that runs."""
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def left(self) -> list[str]:
        """The command lines of processes that the example's commands started and that live."""
        return [self._command(path) for path in Path("/proc").glob("[0-9]*") if self._owns(path)]

    def _owns(self, process: Path) -> bool:
        try:
            return self.mark.encode() in (process / "environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def _command(self, process: Path) -> str:
        try:
            return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            return "it has just ended"


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Example]:
    if not Path("/proc").is_dir():
        pytest.skip("processes are counted in /proc")
    copied = Example(request.param, tmp_path)
    yield copied
    for path in Path("/proc").glob("[0-9]*"):
        if copied._owns(path):
            os.kill(int(path.name), signal.SIGKILL)


@pytest.fixture(scope="module")
def accuracies() -> list[float]:
    """What scikit-learn's own search says of the candidates, the best first."""
    images, labels = load_digits(return_X_y=True)
    images, _, labels, _ = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    searches = [GridSearchCV(SVC(), SVM, cv=folds), GridSearchCV(KNeighborsClassifier(), NEIGHBOURS, cv=folds)]
    scores = [search.fit(images, labels).cv_results_["mean_test_score"] for search in searches]
    return sorted(np.concatenate(scores).tolist(), reverse=True)


@pytest.mark.alarm(240)
@pytest.mark.parametrize("executor", ["local", "ray", "dask"])
@pytest.mark.parametrize("example", ["digits"], indirect=True)
def test_the_search_finds_the_same_on_every_executor(example: Example, executor: str, accuracies: list[float]) -> None:
    """The best candidate and its score, the model that loads as the output says, a report, a picture; nothing else."""
    (example.folder / "grid.yaml").write_text(json.dumps(GRID))
    before = set(example.folder.rglob("*"))

    console = "".join(blocks("README.md", "console"))
    script, flag = re.findall(r"^\$ python examples/digits/(\S+) (\S+) ray$", console, re.MULTILINE)[0]
    shown = example.run(script, flag, executor)

    assert "best of 6: svm, C=1, gamma=0.001" in shown
    assert f"cross-validated accuracy {accuracies[0]:.2%}, on held-back images 98.89%" in shown
    assert re.search(rf"\d+\.\d s on {executor}, after \d+\.\d s", shown)
    assert {int(item) for item in re.findall(r"score\[(\d)\] \| ", shown)} == set(range(6))
    found = dict(re.findall(r"^(\w+) +[\d,]+ bytes  (/.+)$", shown, re.MULTILINE))
    assert set(found) == {"confusion", "model", "report"}
    assert Path(found["confusion"]).read_bytes().startswith(b"\x89PNG")
    ranking = json.loads(Path(found["report"]).read_text())["ranking"]
    assert [row["accuracy"] for row in ranking] == pytest.approx(accuracies, abs=1e-5)
    load = next(line.strip() for line in shown.splitlines() if "allow_pickle" in line)
    code = "import flowtilla; from sklearn.datasets import load_digits; images, digits = load_digits(return_X_y=True)"
    assert example.command("-c", f"{code}; print(({load} == digits).mean() > 0.99)") == "True"
    assert until(lambda: not example.left())
    left = set(example.folder.rglob("*")) - before
    assert all(path.relative_to(example.folder).parts[:1] == (".flowtilla",) for path in left), left


@pytest.mark.alarm(240)
@pytest.mark.parametrize("example", ["digits"], indirect=True)
def test_the_search_runs_as_a_service_would(example: Example) -> None:
    """What the README types into two terminals works, for the executor that flowtilla.yaml names."""
    (example.folder / "grid.yaml").write_text(json.dumps(GRID))
    dev = example.start("-m", "flowtilla.cli", "dev", "--no-dashboard")
    until(lambda: "listens on" in example.output, PATIENCE)
    typed = [
        line.split("  #")[0].split() for line in example.readme("sh")[1].splitlines() if line.startswith("flowtilla")
    ]
    shown = [example.command("-m", "flowtilla.cli", *words[1:]) for words in typed[1:]]
    assert [words[1] for words in typed] == ["dev", "submit", "artifacts"]
    assert "svm, C=1, gamma=0.001" in shown[0]
    assert json.loads(shown[1])["ranking"][0]["title"] == "svm, C=1, gamma=0.001"
    dev.send_signal(signal.SIGINT)
    assert dev.wait(PATIENCE) == 0, example.output


@pytest.mark.parametrize("example", ["digits"], indirect=True)
def test_a_search_that_is_stopped_ends_everything(example: Example) -> None:
    """SIGTERM in the middle ends the server, the worker and the stages' processes."""
    search = example.start("search.py")
    until(lambda: "score[0]" in example.output, PATIENCE)
    search.terminate()
    assert search.wait(PATIENCE) == 128 + signal.SIGTERM, example.output
    assert until(lambda: not example.left())


@pytest.mark.parametrize("example", ["digits"], indirect=True)
def test_a_search_by_hand_finds_the_same(example: Example) -> None:
    """The loop that the timing table compares with chooses the same candidate."""
    (example.folder / "grid.yaml").write_text(json.dumps(GRID))
    assert "best: svm, C=1, gamma=0.001, 98.89%" in example.run("by_hand.py")


@pytest.mark.parametrize("example", ["digits"], indirect=True)
def test_an_executor_that_cannot_be_says_why(example: Example) -> None:
    """The worker's own words end up on the screen, and the command fails."""
    example.env["FLOWTILLA__SERVICES__COMPUTE__EXECUTOR__CPUS"] = "none"
    search = example.start("search.py")
    assert search.wait(PATIENCE) == 1
    assert "the executor 'local' is not valid" in example.output
    assert "the worker has ended before the run" in example.output


#: Days that make a frame larger than the 400 MB of one process, and not many more.
DAYS = 130


@pytest.mark.alarm(300)
@pytest.mark.parametrize("example", ["larger_than_memory"], indirect=True)
def test_a_frame_larger_than_a_process_s_memory_goes_through_three_stages(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process ever has more than its limit, and the stored table is, row by row, what pandas alone makes of it."""
    shown = example.run("run.py", "--days", str(DAYS))

    sizes = {stage: float(size) for stage, size in re.findall(r"^(make|price) +(\d+) MB", shown, re.MULTILINE)}
    peaks = re.search(r"the processes had (\d+) MB and (\d+) MB", shown)
    assert peaks, shown
    assert max(map(float, peaks.groups())) < 400 < min(sizes.values())
    assert until(lambda: not example.left())

    monkeypatch.syspath_prepend(str(example.folder))
    readings = importlib.import_module("meter_readings.readings")
    expected = pd.concat([readings.daily(readings.priced(readings.day(number))) for number in range(DAYS)])
    assert f"{round(expected.kwh.sum()):,} kWh cost {expected.cost.sum():,.2f}; {len(expected):,} daily rows" in shown
    code = example.readme("python")[0] + "\ndaily.compute(scheduler='threads').to_pickle('daily.pkl')"
    example.command("-c", code)
    pd.testing.assert_frame_equal(pd.read_pickle(example.folder / "daily.pkl"), expected)

"""`make demo`, seen from outside: what it prints, what it leaves, and what happens when it is disturbed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "weather"

#: More than a demonstration takes on a busy machine.
PATIENCE = 90.0


class Demo:
    """A demonstration running in a copy of the example's folder.

    Every process that it or its children start inherits `mark` in the environment, whatever session they make.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "weather"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        shutil.copytree(EXAMPLE, self.folder, ignore=shutil.ignore_patterns(".flowtilla", "__pycache__"))
        self.before = self.files()
        self.mark = f"DEMO_MARK={folder}"
        name, _, value = self.mark.partition("=")
        own = {name: value, "TMPDIR": str(self.temporary), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        self._output = folder / "output.txt"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(self.folder / "demo.py")],
                cwd=folder,
                env=os.environ | own,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def files(self) -> set[Path]:
        """Everything in the folder but the storage."""
        found = {path.relative_to(self.folder) for path in self.folder.rglob("*")}
        return {path for path in found if path.parts[:2] != (".flowtilla", "storage")} - {Path(".flowtilla")}

    def processes(self) -> list[int]:
        """The processes of the demonstration that live."""
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and self._owns(path)]

    def _owns(self, process: Path) -> bool:
        try:
            return self.mark.encode() in (process / "environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def until(self, holds: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"{what} did not happen:\n{self.output}"
            time.sleep(0.02)

    def until_queued(self) -> None:
        """Waits until the producer has submitted, so that all processes are there."""
        self.until(lambda: "is queued" in self.output or self.process.poll() is not None, "a submission")
        assert self.process.poll() is None, self.output

    def worker(self, name: str) -> int:
        found = re.search(rf"worker {name} is process (\d+)", self.output)
        assert found, self.output
        return int(found[1])


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    if not Path("/proc").is_dir():
        pytest.skip("processes are counted in /proc")
    # What a background job ignores, its children ignore too; the demonstration is to have a terminal's SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = Demo(tmp_path)
    signal.signal(signal.SIGINT, before)
    yield running
    for pid in running.processes():
        os.kill(pid, signal.SIGKILL)
    running.process.wait()


def test_the_demo_shows_its_work_and_leaves_only_artifacts(demo: Demo) -> None:
    """It exits 0, having shown logs, progress, table and artifacts' paths; no process and no stray file stay."""
    assert demo.process.wait(PATIENCE) == 0, demo.output
    assert demo.processes() == []
    assert list(demo.temporary.iterdir()) == []
    assert demo.files() == demo.before
    assert len(set(re.findall(r"worker demo-\d is process (\d+)", demo.output))) == 2
    assert re.search(r"fit\[23\] \| san_francisco, Dec: 10\.3 °C, swing 4\.5", demo.output)
    assert re.search(r"11/11 ", demo.output)
    table = re.findall(r"^ *(\w{3})  +(\d+\.\d)", demo.output, re.MULTILINE)
    assert table[0] == ("Jan", "5.4")
    assert len(table) == 12
    found = dict(re.findall(r"^(\w+) +[\d,]+ bytes  (/.+)$", demo.output, re.MULTILINE))
    assert set(found) == {"chart", "summary", "table"}
    assert Path(found["chart"]).read_bytes().startswith(b"\x89PNG")
    assert Path(found["table"]).read_text().count("\n") == 13
    assert '"seattle_weather"' in Path(found["summary"]).read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_ends_everything(demo: Demo, number: signal.Signals) -> None:
    """Ctrl-C, which the terminal sends to the producer too, and SIGTERM end every process and clean up."""
    demo.until_queued()
    if number is signal.SIGINT:
        os.killpg(demo.process.pid, number)
    else:
        demo.process.send_signal(number)
    assert demo.process.wait(PATIENCE) == 128 + number, demo.output
    assert demo.processes() == []
    assert list(demo.temporary.iterdir()) == []
    assert demo.files() == demo.before
    assert "Traceback" not in demo.output


def test_a_demo_that_is_killed_takes_its_processes_with_it(demo: Demo) -> None:
    """Even SIGKILL leaves no server and no worker behind."""
    demo.until_queued()
    demo.process.kill()
    demo.process.wait()
    demo.until(lambda: demo.processes() == [], "the end of every process")


def test_a_worker_s_death_is_told_and_ends_the_demo(demo: Demo) -> None:
    """With a worker dead the demo fails, shows the workers' logs, and still ends everything."""
    demo.until(lambda: "demo-2 is process" in demo.output, "the start of the workers")
    os.kill(demo.worker("demo-2"), signal.SIGKILL)
    assert demo.process.wait(PATIENCE) == 1, demo.output
    assert "a worker has died" in demo.output
    assert "log of demo-1" in demo.output
    assert demo.processes() == []
    assert list(demo.temporary.iterdir()) == []

"""What a deputy knows of its worker."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from fleet import until
from flowtilla_worker.stand_in import Slate, _runs


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_it_is_seen_whether_a_process_runs(platform: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that is stopped or dead does not; a strange name misleads nobody. Both with /proc and without."""
    monkeypatch.setattr(sys, "platform", platform)
    strange = tmp_path / ") T (("
    strange.symlink_to("/bin/sleep")
    process = subprocess.Popen([strange, "60"])
    until(lambda: Path(f"/proc/{process.pid}/comm").read_text().strip() == strange.name)

    assert _runs(process.pid)
    process.send_signal(signal.SIGSTOP)
    until(lambda: not _runs(process.pid))
    process.send_signal(signal.SIGCONT)
    until(lambda: _runs(process.pid))
    process.kill()
    until(lambda: not _runs(process.pid))
    assert Path(f"/proc/{process.pid}").exists(), "it is dead, and not yet waited for"
    process.wait()
    assert not _runs(process.pid)


def test_a_slate_says_what_was_written_last() -> None:
    """Also after something longer; and while it is being written, that the worker is at work."""
    with tempfile.TemporaryFile() as file:
        slate = Slate(file.fileno())
        for held in ([], [("a", "1"), ("b", "2")], [("c", "3")]):
            slate.write(12.5, held)
            assert slate.read() == (12.5, held)
        os.pwrite(file.fileno(), os.pread(file.fileno(), 99, 0).replace(b"12.5", b"99.9"), 0)
        beaten, held = slate.read()
        assert held == []
        assert beaten == pytest.approx(time.monotonic(), abs=5)

"""The whole thing on one machine: a server, two workers and a producer, each a process of its own.

Nothing is left behind but the artifacts, under .flowtilla in this folder.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from flowtilla_worker.dev.embedded import EmbeddedValkey
from flowtilla_worker.supervisor import worker_command

HERE = Path(__file__).parent

WORKERS = ("demo-1", "demo-2")

#: Seconds a worker has to stop: more than its grace.
PATIENCE = 40.0


def main() -> int:
    """Runs the demonstration and returns the producer's exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowtilla-demo-")))
        server = stack.enter_context(EmbeddedValkey(folder, persistent=False))
        print(f"Valkey answers at {server.url}", flush=True)
        env = os.environ | {"FLOWTILLA__REDIS__URL": server.url}
        logs = {name: folder / f"{name}.log" for name in WORKERS}
        workers = {name: stack.enter_context(worker(name, logs[name], env)) for name in WORKERS}
        for name, process in workers.items():
            print(f"worker {name} is process {process.pid}", flush=True)
        code = produce(env, list(workers.values()))
        if code:
            for name, log in logs.items():
                print(f"\nlog of {name}:\n{log.read_text(errors='replace')}", file=sys.stderr)
        return code


@contextmanager
def worker(name: str, log: Path, env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs a worker process, and on leaving lets it drain.

    It has a session of its own, so Ctrl-C reaches only us, and a pipe as its input, whose end tells it that we died.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            worker_command(name),
            cwd=HERE,
            env=env,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        try:
            process.terminate()
            process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.communicate()


def produce(env: dict[str, str], workers: list["subprocess.Popen[bytes]"]) -> int:
    """Runs the producer, and returns its exit code; or 1 when a worker has died, for nobody would do the work."""
    producer = subprocess.Popen([sys.executable, str(HERE / "enqueue.py")], cwd=HERE, env=env)
    try:
        while producer.poll() is None:
            if any(process.poll() is not None for process in workers):
                print("a worker has died", file=sys.stderr)
                return 1
            time.sleep(0.05)
        return producer.returncode
    finally:
        producer.kill()
        producer.wait()


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

"""The whole search on one machine: a server, a worker with the executor of your choice, and the client, which is us.

    python search.py --executor ray

Nothing is left behind but the artifacts, under .flowtilla in this folder.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import yaml

import flowtilla
from flowtilla_worker.dev.embedded import EmbeddedValkey
from flowtilla_worker.supervisor import worker_command

HERE = Path(__file__).parent

NAMESPACE = "digits"

#: Seconds a worker has to stop: more than its grace.
PATIENCE = 40.0

Process = subprocess.Popen[bytes]


def main(executor: str) -> None:
    """Runs the search once on an executor, and shows what it found."""
    began = time.monotonic()
    os.chdir(HERE)  # where the configuration is, and the stages' module
    with (
        tempfile.TemporaryDirectory(prefix="flowtilla-digits-") as folder,
        EmbeddedValkey(folder, persistent=False) as server,
        worker(executor, server.url, Path(folder, "worker.log")) as process,
        flowtilla.Client(server.url) as client,
    ):
        grid = yaml.safe_load(Path("grid.yaml").read_text(encoding="utf-8"))
        run = client.submit("workflow.yaml", input=grid, namespace=NAMESPACE)
        follow(run, client, process)
        show(run, executor)
    print(f"{time.monotonic() - began:.1f} s with everything that was started and stopped for it")


@contextmanager
def worker(executor: str, url: str, log: Path) -> Iterator[Process]:
    """Runs a worker process, and on leaving lets it end its executor's cluster.

    It has a session of its own, so Ctrl-C reaches only us, and a pipe as its input, whose end tells it that we died.
    """
    own = {"FLOWTILLA__REDIS__URL": url, "FLOWTILLA__SERVICES__COMPUTE__EXECUTOR__TARGET": executor}
    with log.open("wb") as output:
        process = subprocess.Popen(
            worker_command(f"digits-{executor}"),
            env=os.environ | own,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    except Exception:
        sys.stderr.write(log.read_text(errors="replace"))
        raise
    finally:
        try:
            process.terminate()
            process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.communicate()


def follow(run: flowtilla.Run, client: flowtilla.Client, process: Process) -> None:
    """Prints the stages' lines as they write them, and what the executor says of itself, until the run has ended."""
    print(f"run {run.id} is queued", flush=True)
    reader = threading.Thread(target=print_logs, args=(run,), daemon=True)
    reader.start()
    told = ""
    while not run.state.ended:
        if process.poll() is not None:
            raise flowtilla.errors.WorkerError("the worker has ended before the run")
        for record in client.workers():
            if record.cluster != told:
                told = record.cluster
                print(f"{record.executor}: {told}", flush=True)
        with suppress(flowtilla.errors.RunNotFinished):
            run.wait(timeout=0.2)
    reader.join()


def print_logs(run: flowtilla.Run) -> None:
    """Prints each line with its time, stage and item."""
    with suppress(flowtilla.errors.QueueUnavailable):  # The server has gone before the run has ended: we are leaving.
        for line in run.logs(follow=True):
            print(line, flush=True)


def show(run: flowtilla.Run, executor: str) -> None:
    """Prints the best candidate, and where everything is."""
    result, record, artifacts = run.result(), run.record, run.artifacts
    best = result["best"]
    seconds = (record.ended_at - record.started_at).total_seconds()
    waited = (record.started_at - record.created_at).total_seconds()
    print(f"\nbest of {result['candidates']}: {best['title']}")
    print(f"cross-validated accuracy {best['accuracy']:.2%}, on held-back images {result['test_accuracy']:.2%}")
    print(f"{seconds:.1f} s on {executor}, after {waited:.1f} s until it was ready\n")
    for name, artifact in sorted(artifacts.items()):
        print(f"{name:<10} {artifact.size:>8,} bytes  {artifact.path}")
    print("\nTo use the model, in this folder:")
    print(f'  flowtilla.artifacts.get("model", namespace="{NAMESPACE}").read(allow_pickle=True).predict(images)\n')


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--executor", choices=("local", "ray", "dask"), default="local", help="what runs the stages")
    chosen = options.parse_args().executor
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _leave)
    try:
        main(chosen)
    except KeyboardInterrupt:
        sys.exit(130)
    except flowtilla.errors.FlowtillaError as error:
        sys.exit(f"error: {error}")

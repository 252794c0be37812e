"""The producer: submits the workflow, follows it, shows what came out. Run it in this folder.

It could be any service: it imports flowtilla, and knows nothing of workers, executors or numpy.
"""

import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import flowtilla

WORKFLOW = Path(__file__).with_name("workflow.yaml")


def main() -> int:
    """Runs the workflow once and returns the exit code."""
    with flowtilla.Client() as client:
        run = client.submit(WORKFLOW, input={"cities": ["seattle", "san_francisco"]}, namespace="weather", timeout="5m")
        print(f"run {run.id} is queued\n")
        follow(run)
        result = run.result()
        print("\n" + table(result["rows"]) + "\n")
        for name, artifact in sorted(run.artifacts.items()):
            print(f"{name:<8} {artifact.size:>8,} bytes  {artifact.path}")
    return 0


def follow(run: flowtilla.Run) -> None:
    """Prints the stages' log lines and the run's progress until the run has ended."""
    reader = threading.Thread(target=print_logs, args=(run,), daemon=True)
    reader.start()
    shown: set[str] = set()
    while True:
        record = run.record
        ended = [stage for stage in record.stages.values() if stage.state.ended and stage.name not in shown]
        for stage in sorted(ended, key=lambda stage: stage.ended or 0):
            shown.add(stage.name)
            print(progress(len(shown), record.stages_total, stage))
        if record.state.ended:
            break
        with suppress(flowtilla.errors.RunNotFinished):
            run.wait(timeout=0.2)
    reader.join()


def print_logs(run: flowtilla.Run) -> None:
    """Prints each line as it is written, with its time, stage and item."""
    for line in run.logs(follow=True):
        print(line)


def progress(done: int, total: int, stage: Any) -> str:
    """Returns a line such as `███░░░  3/6  fit finished: 24 of 24 in 0.31 s`."""
    bar = "█" * done + "░" * (total - done)
    took = "" if stage.seconds is None else f" in {stage.seconds:.2f} s"
    return f"{bar} {done:>2}/{total}  {stage.name} {stage.state}: {stage.done} of {stage.total or 1}{took}"


def table(rows: list[dict[str, Any]]) -> str:
    """Returns rows as text, each column as wide as it must be."""
    lines = [list(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(rows[0]))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def cell(value: Any) -> str:
    """Returns a value as the table shows it."""
    return f"{value:.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except flowtilla.errors.FlowtillaError as error:
        sys.exit(f"error: {error}")

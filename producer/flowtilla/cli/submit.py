"""`flowtilla submit` and `flowtilla validate`."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowtilla.cli.options import AtFront, ConfigFile, Json, Namespace, mapping_of

if TYPE_CHECKING:
    from flowtilla.record import RunRecord
    from flowtilla.run import Run

WorkflowFile = Annotated[Path, typer.Argument(metavar="FILE", help="The workflow: YAML, or JSON in a file *.json.")]


def validate(file: WorkflowFile, json: Json = False) -> None:
    """Check a workflow file without running it."""
    from flowtilla.cli.output import print_json
    from flowtilla.loading import load_workflow

    workflow = load_workflow(file)
    if json:
        final = list(workflow.final_stages)
        print_json({"workflow": workflow.name, "stages": [stage.name for stage in workflow.stages], "final": final})
        return
    print(f"{file}: workflow {workflow.name} is valid")
    print(f"stages: {', '.join(stage.name for stage in workflow.stages)}")
    print(f"final:  {', '.join(workflow.final_stages)}")


def submit(
    file: WorkflowFile,
    input: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="KEY=VALUE", help="An input; the value is YAML or JSON. Or @FILE."),
    ] = None,
    namespace: Namespace = None,
    queue: Annotated[str, typer.Option("--queue", "-q", help="The queue to push it onto.")] = "default",
    run_id: Annotated[str | None, typer.Option(help="An id of your own; a run that has it is not made again.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Any text; the same text gives the same run.")] = None,
    timeout: Annotated[str | None, typer.Option(help='How long the run may take, such as "90s".')] = None,
    retention: Annotated[str | None, typer.Option(help='How long it is kept after its end, such as "7d".')] = None,
    delay: Annotated[str | None, typer.Option(help='How long from now it is queued, such as "5m".')] = None,
    at: Annotated[str | None, typer.Option(help="When it is queued, such as 2030-01-31T12:00; local time.")] = None,
    at_front: AtFront = False,
    tag: Annotated[list[str] | None, typer.Option(help="A mark shown with the run.")] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="What stages read in context().config. Or @FILE."),
    ] = None,
    concurrency: Annotated[
        list[str] | None,
        typer.Option("--concurrency", metavar="KEY=N", help="At most N runs of this key at once; repeatable."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until it has ended; print the result.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print its log until it has ended.")] = False,
    wait_timeout: Annotated[str | None, typer.Option(help='How long to wait at most, such as "10m".')] = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Enqueue one run of a workflow, and print its id, or with --wait its result."""
    from flowtilla.cli.options import client_of

    limit = _seconds(wait_timeout, "--wait-timeout")
    with client_of(config) as client:
        run = client.submit(
            file,
            mapping_of(input or [], "--input"),
            namespace=namespace,
            queue=queue,
            run_id=run_id,
            idempotency_key=idempotency_key,
            timeout=_seconds(timeout, "--timeout"),
            retention=_seconds(retention, "--retention"),
            delay=_seconds(delay, "--delay"),
            at=None if at is None else _moment(at),
            at_front=at_front,
            tags=tag or [],
            config=mapping_of(set or [], "--set"),
            concurrency=mapping_of(concurrency or [], "--concurrency"),
        )
        if wait or follow:
            raise typer.Exit(_watched(run, wait, follow, limit, json))
        _print_id(run, json)


def _print_id(run: "Run", json: bool) -> None:
    from flowtilla.cli.output import print_json
    from flowtilla.cli.record import as_data

    if json:
        print_json(as_data(run.record))
    else:
        print(run.id)


def _watched(run: "Run", wait: bool, follow: bool, limit: float | None, json: bool) -> int:
    """Watches a run to its end, prints what it came to, and returns the exit code."""
    from flowtilla.cli.exits import FAILED
    from flowtilla.cli.output import note
    from flowtilla.cli.watch import come_back, watch
    from flowtilla.states import RunState

    note(f"run {run.id}")
    with come_back(run.id):
        # With --json the log goes where progress goes: standard output is the one document's.
        record = watch(run, progress=wait or json, follow=follow, timeout=limit)
    _print_end(run, record, wait, json)
    return 0 if record.state is RunState.FINISHED else FAILED


def _print_end(run: "Run", record: "RunRecord", wait: bool, json: bool) -> None:
    from flowtilla.cli.output import note, print_json, print_result
    from flowtilla.cli.record import as_data
    from flowtilla.states import RunState

    finished = record.state is RunState.FINISHED
    if json:
        print_json(as_data(record) | ({"result": run.result()} if finished else {}))
    elif finished:
        if wait:
            print_result(run.result())
    else:
        traceback = record.error.traceback if record.error else ""
        note(f"error: {record.to_error()}\n{traceback}".rstrip())


def _seconds(text: str | None, option: str) -> float | None:
    from flowtilla.plain_data import parse_value
    from flowtilla.units import parse_duration

    try:
        return None if text is None else parse_duration(parse_value(text))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; write 2030-01-31T12:00", param_hint="--at") from error

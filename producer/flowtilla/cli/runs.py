"""`flowtilla runs`."""

from typing import Annotated

import typer

from flowtilla.cli.options import ConfigFile, Json


def runs(
    namespace: Annotated[str | None, typer.Option(help="Only of this namespace.")] = None,
    state: Annotated[
        str | None, typer.Option(help="Only queued, running, finished, failed, cancelled or quarantined.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """List the newest runs, newest first."""
    from flowtilla.cli.options import client_of
    from flowtilla.cli.output import moment, print_json, print_table
    from flowtilla.cli.record import as_data, summary
    from flowtilla.states import RunState

    if state is not None and state not in list(RunState):
        raise typer.BadParameter(f"{state!r} is none of {', '.join(RunState)}", param_hint="--state")
    with client_of(config) as client:
        records = client.records(namespace, state, limit)
    if json:
        print_json([as_data(record) for record in records])
        return
    columns = ["RUN", "STATE", "STAGES", "WORKFLOW", "NAMESPACE", "QUEUE", "CREATED", "TAGS"]
    rows = [
        [
            record.id,
            record.state,
            "/".join(map(str, record.progress)),
            record.workflow,
            record.namespace,
            record.queue,
            moment(record.created_at),
            ",".join(record.tags),
        ]
        for record in records
    ]
    if any(reasons := [summary(record) for record in records]):
        columns.append("WHY")
        rows = [[*row, reason] for row, reason in zip(rows, reasons, strict=True)]
    print_table(columns, rows)

"""`flowtilla workers`."""

from typing import TYPE_CHECKING, Annotated

import typer

from flowtilla.cli.options import ConfigFile, Json

if TYPE_CHECKING:
    from flowtilla.workers import WorkerRecord


def workers(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only the worker of this name.")] = None,
    here: Annotated[bool, typer.Option("--here", help="Only workers of this host.")] = False,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """List live workers. With NAME or --here, exit with 1 unless there are such workers, and all are ready."""
    import socket

    from flowtilla.cli.exits import FAILED
    from flowtilla.cli.options import client_of

    with client_of(config) as client:
        records = client.workers()
    if name is not None:
        records = [record for record in records if record.name == name]
    if here:
        records = [record for record in records if record.host == socket.gethostname()]
    print_workers(records, json)
    asked = here or name is not None
    if asked and not (records and all(record.ready for record in records)):
        raise typer.Exit(FAILED)


def print_workers(records: "list[WorkerRecord]", json: bool) -> None:
    """Prints workers, as a table or as JSON."""
    from dataclasses import asdict

    from flowtilla.cli.output import moment, print_json, print_table

    if json:
        print_json([asdict(record) for record in records])
        return
    print_table(
        ["WORKER", "HOST", "QUEUES", "STATE", "RUNS", "EXECUTOR", "READY", "SINCE", "CLUSTER"],
        [
            [
                record.name,
                record.host,
                ",".join(f"{one} (suspended)" if one in record.suspended else one for one in record.queues),
                record.state,
                str(record.runs),
                record.executor,
                "yes" if record.ready else "no",
                moment(record.ready_since),
                record.cluster,
            ]
            for record in records
        ],
    )

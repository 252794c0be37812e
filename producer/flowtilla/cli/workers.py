"""`flowtilla workers`."""

from typing import Annotated

import typer

from flowtilla.cli.options import ConfigFile, Json


def workers(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only the worker of this name.")] = None,
    here: Annotated[bool, typer.Option("--here", help="Only workers of this host.")] = False,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """List live workers. With NAME or --here, exit with 1 unless there are such workers, and all are ready."""
    import socket
    from dataclasses import asdict

    from flowtilla.cli.exits import FAILED
    from flowtilla.cli.options import client_of
    from flowtilla.cli.output import moment, print_json, print_table

    with client_of(config) as client:
        records = client.workers()
    if name is not None:
        records = [record for record in records if record.name == name]
    if here:
        records = [record for record in records if record.host == socket.gethostname()]
    if json:
        print_json([asdict(record) for record in records])
    else:
        print_table(
            ["WORKER", "HOST", "QUEUES", "STATE", "RUNS", "EXECUTOR", "READY", "SINCE", "CLUSTER"],
            [
                [
                    record.name,
                    record.host,
                    ",".join(record.queues),
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
    asked = here or name is not None
    if asked and not (records and all(record.ready for record in records)):
        raise typer.Exit(FAILED)

"""`flowtilla worker drain`, `suspend` and `resume`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowtilla.cli.options import ConfigFile, Json

if TYPE_CHECKING:
    from flowtilla.client import Client
    from flowtilla.workers import WorkerRecord

Workers = Annotated[list[str] | None, typer.Argument(metavar="WORKER", help="Workers, by name.")]
All = Annotated[bool, typer.Option("--all", help="The whole fleet.")]


def drain(
    workers: Workers = None,
    queue: Annotated[
        list[str] | None, typer.Option("--queue", "-q", help="The workers of this queue; repeat it for more.")
    ] = None,
    everyone: All = False,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Let workers finish the runs they have, however long that takes, and end; supervised ones stay down."""
    _tell(lambda client: client.drain, workers, queue, everyone, config, json)


def suspend(
    workers: Workers = None,
    queue: Annotated[
        list[str] | None, typer.Option("--queue", "-q", help="Let nobody take runs from this queue; repeat it.")
    ] = None,
    everyone: All = False,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Let workers take no runs until `resume`; those they have go on."""
    _tell(lambda client: client.suspend, workers, queue, everyone, config, json)


def resume(
    workers: Workers = None,
    queue: Annotated[
        list[str] | None, typer.Option("--queue", "-q", help="Let runs be taken from this queue again; repeat it.")
    ] = None,
    everyone: All = False,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Take back `suspend`, or a `drain` that is not over; with --all, whatever was told anybody."""
    _tell(lambda client: client.resume, workers, queue, everyone, config, json)


def _tell(
    verb: "Callable[[Client], Callable[..., list[WorkerRecord]]]",
    workers: list[str] | None,
    queues: list[str] | None,
    everyone: bool,
    config: Path | None,
    json: bool,
) -> None:
    from flowtilla.cli.options import client_of
    from flowtilla.cli.workers import print_workers

    if not (workers or queues or everyone):
        raise typer.BadParameter("name workers, or give --queue or --all", param_hint="WORKER")
    with client_of(config) as client:
        concerned = verb(client)(*(workers or ()), queues=queues or (), all=everyone)
    print_workers(concerned, json)

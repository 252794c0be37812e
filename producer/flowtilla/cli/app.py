"""The commands, put together."""

from typing import Annotated

import typer

from flowtilla.cli.artifacts import app as artifacts
from flowtilla.cli.config import app as config
from flowtilla.cli.exits import Commands
from flowtilla.cli.run import cancel, logs, retry, status
from flowtilla.cli.runs import runs
from flowtilla.cli.submit import submit, validate
from flowtilla.cli.worker import app as worker
from flowtilla.cli.worker import dev
from flowtilla.cli.workers import workers

# A traceback with local variables would show secrets.
app = typer.Typer(
    name="flowtilla",
    cls=Commands,
    help="Push workflow runs onto queues, run the workers that execute them, and see what became of them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from flowtilla import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def flowtilla(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Push workflow runs onto queues, run the workers that execute them, and see what became of them."""


for command in (submit, validate, workers, dev, runs, status, logs, cancel, retry):
    app.command()(command)
app.add_typer(worker, name="worker")
app.add_typer(artifacts, name="artifacts")
app.add_typer(config, name="config")

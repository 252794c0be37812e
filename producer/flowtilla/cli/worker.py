"""`flowtilla worker` and `flowtilla dev`."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowtilla.cli import orders
from flowtilla.cli.options import ConfigFile

if TYPE_CHECKING:
    from flowtilla.settings import Settings

app = typer.Typer(invoke_without_command=True)


@app.callback()
def worker(
    context: typer.Context,
    processes: Annotated[
        int | None,
        typer.Option("-n", min=1, help="So many worker processes under a supervisor, which restarts one that dies."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The worker's name; several are NAME-1, NAME-2, ...")] = None,
    queue: Annotated[
        list[str] | None, typer.Option("--queue", "-q", help="A queue to work on; repeat it, the most urgent first.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="So many runs at once in each process.")] = None,
    burst: Annotated[bool, typer.Option("--burst", help="End when the queues are empty.")] = False,
    config: ConfigFile = None,
    supervised: Annotated[bool, typer.Option("--supervised", hidden=True)] = False,
) -> None:
    """Run workers, or tell those that run what to do.

    SIGTERM or Ctrl-C lets runs finish; a second one hands them back at once.
    """
    if context.invoked_subcommand is not None:
        return _refuse_flags(context, context.invoked_subcommand)
    from flowtilla.config import load

    given = {"queues": queue, "concurrency": concurrency}
    overrides = {key: value for key, value in given.items() if value}
    settings = load(config, overrides={"services": {"worker": overrides}})
    if processes is not None:
        flags = [*(["--burst"] if burst else []), *(["--config", str(config)] if config else [])]
        flags += [word for one in queue or [] for word in ("--queue", one)]
        flags += ["--concurrency", str(concurrency)] if concurrency else []
        raise typer.Exit(_supervise(settings, processes, name, burst, flags))
    raise typer.Exit(_work(settings, name, burst, supervised))


for command in (orders.drain, orders.suspend, orders.resume):
    app.command()(command)


def _refuse_flags(context: typer.Context, command: str) -> None:
    """Makes sure that no flag was given before a subcommand, where it would do nothing."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        # By its name: typer brings a click of its own, or not.
        if source is not None and source.name == "COMMANDLINE":
            flag = parameter.opts[0]
            raise typer.BadParameter(f"{flag} goes behind {command!r}, if that takes it", param_hint=flag)


def _work(settings: "Settings", name: str | None, burst: bool, supervised: bool) -> int:
    from flowtilla_worker.main import run_worker
    from flowtilla_worker.supervisor import stop_with_supervisor

    if supervised:
        stop_with_supervisor(settings.services.worker.grace)
    # As `python -m` and `rq worker` have it: the stages are often in the folder the worker is started in.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return run_worker(settings, name, burst, supervised)


def _supervise(settings: "Settings", processes: int, name: str | None, burst: bool, flags: list[str]) -> int:
    from flowtilla_worker.burial import bury
    from flowtilla_worker.logsetup import configure_logging
    from flowtilla_worker.supervisor import Supervisor, worker_command, worker_names

    configure_logging(settings.logging)
    names = worker_names(name, processes)
    grace = settings.services.worker.grace
    return Supervisor(names, lambda one: worker_command(one, *flags), partial(bury, settings.redis), grace, burst).run()


def dev(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The server's port; a free one by default.")
    ] = None,
    dashboard: Annotated[bool, typer.Option(help="Start rq-dashboard too, if it is installed.")] = True,
    processes: Annotated[int, typer.Option("-n", min=1, help="So many worker processes.")] = 1,
    config: ConfigFile = None,
) -> None:
    """Run a server, a worker and a dashboard for this folder, until Ctrl-C. Needs no Redis."""
    from flowtilla_worker.dev.run import run_dev

    raise typer.Exit(run_dev(processes, port, dashboard, config))

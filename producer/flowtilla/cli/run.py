"""Commands about one run: `status`, `logs`, `cancel`, `retry`."""

from typing import TYPE_CHECKING, Annotated

import typer

from flowtilla.cli.options import AtFront, ConfigFile, Json, RunId

if TYPE_CHECKING:
    from flowtilla.run import Run


def status(run_id: RunId, config: ConfigFile = None, json: Json = False) -> None:
    """Show a run: its state, its stages, and why it failed."""
    from flowtilla.cli.options import client_of
    from flowtilla.cli.output import print_json
    from flowtilla.cli.record import as_data, print_record

    with client_of(config) as client:
        record = client.get(run_id).record
    if json:
        print_json(as_data(record))
    else:
        print_record(record)


def logs(
    run_id: RunId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines until the run has ended.")
    ] = False,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Print what a run's stages logged and printed; with --json, one JSON object a line."""
    from flowtilla.cli.options import client_of
    from flowtilla.cli.watch import come_back

    with client_of(config) as client, come_back(run_id):
        for line in client.get(run_id).logs(follow=follow):
            print(line.to_json() if json else line, flush=follow)


def cancel(run_id: RunId, config: ConfigFile = None, json: Json = False) -> None:
    """Cancel a run: at once while it waits, within seconds while it runs; a run that has ended stays as it is."""
    from flowtilla.cli.options import client_of

    with client_of(config) as client:
        run = client.get(run_id)
        run.cancel()
        _print_state(run, json)


def retry(run_id: RunId, at_front: AtFront = False, config: ConfigFile = None, json: Json = False) -> None:
    """Queue a run again that failed or was cancelled; stages that ended well do not run again."""
    from flowtilla.cli.options import client_of
    from flowtilla.cli.record import describe

    with client_of(config) as client:
        run = client.get(run_id)
        error = run.record.error
        run.retry(at_front=at_front)
        _print_state(run, json)
    if error is not None and not json:
        print(f"it had failed: {describe(error)}")


def _print_state(run: "Run", json: bool) -> None:
    from flowtilla.cli.output import print_json
    from flowtilla.cli.record import as_data

    record = run.record
    if json:
        print_json(as_data(record))
    else:
        print(f"{record.id} {record.state}")

"""`flowtilla config`."""

import typer

from flowtilla.cli.options import ConfigFile, Json

app = typer.Typer(help="The configuration.", no_args_is_help=True)


@app.callback()
def config() -> None:
    """The configuration."""


@app.command()
def show(config: ConfigFile = None, json: Json = False) -> None:
    """Print the settings in force, from file, environment and defaults; secrets are masked."""
    import yaml

    from flowtilla.cli.output import print_json
    from flowtilla.config import load, shown

    settings = shown(load(config))
    if json:
        print_json(settings)
    else:
        typer.echo(yaml.safe_dump(settings, sort_keys=False), nl=False)

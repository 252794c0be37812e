"""`flowtilla artifacts`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowtilla.cli.options import ConfigFile, Json, Namespace

if TYPE_CHECKING:
    from flowtilla.storage import Artifact, ArtifactStore

app = typer.Typer(help="What stages stored: list, fetch, remove.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The artifact's name.")]


@app.command()
def ls(
    namespace: Namespace = None,
    everywhere: Annotated[bool, typer.Option("--all", help="Of all namespaces.")] = False,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """List the artifacts of a namespace."""
    from flowtilla.cli.output import print_json, print_table

    store, own = _store(config, namespace)
    found = [artifact for one in (store.namespaces() if everywhere else [own]) for artifact in store.list(one)]
    if json:
        print_json([_as_data(artifact) for artifact in found])
        return
    print_table(
        ["NAMESPACE", "NAME", "FORMAT", "SIZE", "CREATED", "PATH"],
        [[one.namespace, one.name, one.format, f"{one.size:,}", _created(one), one.path] for one in found],
    )


@app.command()
def get(
    name: Name,
    namespace: Namespace = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file or folder to write; - is standard output.")
    ] = Path(),
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Copy an artifact to a local file, verified, and print where it is."""
    from flowtilla.cli.output import print_json

    store, own = _store(config, namespace)
    artifact = store.get(own, name)
    if str(output) == "-":
        _to_stdout(artifact)
        return
    target = artifact.download(output)
    if json:
        print_json(_as_data(artifact) | {"downloaded": str(target)})
    else:
        print(target)


@app.command()
def rm(name: Name, namespace: Namespace = None, config: ConfigFile = None, json: Json = False) -> None:
    """Remove an artifact and its old versions."""
    from flowtilla.cli.output import print_json

    store, own = _store(config, namespace)
    artifact = store.get(own, name)
    store.delete(own, name)
    if json:
        print_json(_as_data(artifact))
    else:
        print(f"removed {own}/{name}")


def _store(config: Path | None, namespace: str | None) -> "tuple[ArtifactStore, str]":
    from flowtilla.config import load
    from flowtilla.storage import ArtifactStore

    settings = load(config)
    chosen = settings.services.compute.default_namespace if namespace is None else namespace
    return ArtifactStore(settings.storage), chosen


def _as_data(artifact: "Artifact") -> dict[str, object]:
    names = ("namespace", "name", "format", "size", "sha256", "created", "path", "metadata")
    return {name: getattr(artifact, name) for name in names}


def _created(artifact: "Artifact") -> str:
    from datetime import UTC, datetime

    from flowtilla.cli.output import moment

    return moment(datetime.fromtimestamp(artifact.created, UTC))


def _to_stdout(artifact: "Artifact") -> None:
    import shutil
    import tempfile

    from flowtilla.errors import StorageError

    with tempfile.TemporaryDirectory(prefix="flowtilla-") as folder:
        # By way of a file, so that what reaches standard output was verified.
        target = artifact.download(Path(folder))
        if target.is_dir():
            raise StorageError(f"{artifact.namespace}/{artifact.name} is a folder: give a place with --output")
        with target.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)

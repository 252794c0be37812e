"""What several commands take, and the settings and client they make of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flowtilla.client import Client

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="The configuration file; else $FLOWTILLA_CONFIG, else ./flowtilla.yaml if it is there."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else.")]
Namespace = Annotated[str | None, typer.Option(help="The namespace; the configuration's default when not given.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
AtFront = Annotated[bool, typer.Option("--at-front", help="Before what waits in the queue.")]


def client_of(config: Path | None) -> "Client":
    """Returns a client with the settings of the configuration file and the environment."""
    from flowtilla.client import Client
    from flowtilla.config import load

    return Client(settings=load(config))


def mapping_of(words: list[str], option: str) -> dict[str, Any]:
    """Returns the mapping that `key=value` words give; a later key replaces an earlier one.

    Args:
        words: `key=value`, the value read as YAML or JSON; or `@file`, a YAML or JSON file with a whole mapping.
        option: what they were given to, for the message.

    Raises:
        MessageError: a file cannot be read.
        typer.BadParameter: a word is neither.
    """
    from flowtilla.errors import MessageError
    from flowtilla.loading import read
    from flowtilla.plain_data import parse_value

    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if word.startswith("@"):
            found |= read(word[1:], MessageError).data
        elif key and equals:
            found[key] = parse_value(text)
        else:
            raise typer.BadParameter(f"{word!r} is neither key=value nor @file", param_hint=option)
    return found

"""Reads YAML and JSON files: any that hold a mapping, and workflows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flowtilla.errors import FlowtillaError, InvalidWorkflow
from flowtilla.plain_data import Malformed, build, compose, parse_json
from flowtilla.workflow import Workflow

#: A file with more bytes is refused.
MAX_BYTES = 1024**2


def load_workflow(source: str | Path | Mapping[str, Any] | Workflow) -> Workflow:
    """Returns the workflow that a file or a mapping describes.

    Args:
        source: the path of a YAML or JSON file, a mapping of the same shape, or a workflow, which is returned as it is.

    Raises:
        InvalidWorkflow: it cannot be read or breaks a rule; the message names the file, the line and the field's path.
    """
    if isinstance(source, Workflow):
        return source
    if isinstance(source, Mapping):
        return Workflow.parse(dict(source))
    if not isinstance(source, (str, Path)):
        raise InvalidWorkflow(f"a workflow is a file's path, a mapping or a Workflow, not {type(source).__name__}")
    document = read(source, InvalidWorkflow)
    if not document.data:
        raise InvalidWorkflow(f"{document.name}: is empty, where a workflow is expected")
    try:
        return Workflow.parse(document.data, document.name)
    except InvalidWorkflow as error:
        raise InvalidWorkflow(document.with_lines(str(error))) from error.__cause__


@dataclass(frozen=True)
class Document:
    """What a file holds: a mapping, and where in the file its parts are.

    Args:
        name: the file, as it was given.
        data: the mapping.
        node: its YAML node; None for JSON.
    """

    name: str
    data: dict[str, Any]
    node: yaml.Node | None = None

    def with_lines(self, message: str) -> str:
        """Returns a message of `flowtilla.problems` with `file:line:` before each field's path."""
        if self.node is None:
            return message
        # A rule about several fields is reported at what they share, and its sentence begins with the rest of the path.
        located = re.compile(r"^  (?=([\w.\[\]-]+): (?:(\w[\w.\[\]]*): )?)", re.MULTILINE)
        return located.sub(lambda found: f"  {self.name}:{self._line(found[1], found[2] or '')}: ", message)

    def _line(self, *paths: str) -> int:
        """Returns the line of the deepest part of a path that the file has."""
        node, line = self.node, 0
        for part in re.findall(r"[^.\[\]]+", ".".join(paths)):
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return line + 1


def _child(node: yaml.Node | None, part: str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key.start_mark.line, value) for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and part.isdecimal() and int(part) < len(node.value):
        item: yaml.Node = node.value[int(part)]
        return item.start_mark.line, item
    return None


def read(path: str | Path, kind: type[FlowtillaError]) -> Document:
    """Returns the mapping that a file holds, `{}` when it is empty: JSON when its name ends in `.json`, else YAML.

    Args:
        path: the file.
        kind: the error to raise.

    Raises:
        FlowtillaError: of that kind; it cannot be read, does not parse, or is not a mapping.
    """
    name = str(path)
    is_json = name.lower().endswith(".json")
    try:
        text = _text(Path(path))
        node = None if is_json else compose(text)
        data = parse_json(text) if is_json else build(node)
    except Malformed as error:
        raise kind(f"{name}{error.place}: {error}") from error.__cause__
    if not isinstance(data, (dict, type(None))):
        raise kind(f"{name}: holds {_kind(data)}, where a mapping is expected")
    return Document(name, data or {}, node)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise Malformed(f"there is no such file; the working directory is {Path.cwd()}") from error
    except IsADirectoryError as error:
        raise Malformed("is a directory, where a file is expected") from error
    except (OSError, ValueError) as error:
        raise Malformed(f"cannot be read: {error}") from error
    if len(data) > MAX_BYTES:
        raise Malformed(f"is larger than {MAX_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}") from error


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else "text" if isinstance(value, str) else "a single value"

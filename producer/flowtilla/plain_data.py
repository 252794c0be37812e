"""JSON and YAML as plain data, where YAML is JSON's types in other clothes.

What looks like a JSON number, `true`, `false` or `null` is one, and all else is text. So `no`, `12:30`, `2024-01-31`
and `007` stay what people wrote, unlike in YAML 1.1.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import isfinite
from typing import Any

import yaml

#: A text that aliases blow up to more values, or that nests deeper, is refused: both can be written in a few bytes.
MAX_VALUES = 500_000
MAX_DEPTH = 100


def parse_value(text: str) -> Any:
    """Returns what one word of the command line or the environment means: `5`, `true`, `null`, `[a, b]`, `{a: 1}`.

    Anything else, and anything in quotes, is text.
    """
    opening = text.lstrip()[:1]
    if opening and opening in '[{"':
        # YAML reads nearly all of JSON, but not a character that JSON has escaped as a pair.
        with suppress(Malformed):
            return parse_json(text)
    try:
        node = compose(text)
        value = build(node)
    except Malformed:
        return text
    if isinstance(node, yaml.ScalarNode):
        quoted = node.style in ("'", '"')
        # A plain scalar is all of the text, or there is a tag, an anchor or a comment beside it.
        plain = not node.style and node.value == text.strip() and not isinstance(value, str)
        return value if quoted or plain else text
    return value if opening and opening in "[{" else text


class Malformed(ValueError):
    """Says what is wrong with a text, and where."""

    def __init__(self, message: str, line: int | None = None, column: int = 0) -> None:
        super().__init__(message)
        self.place = "" if line is None else f":{line + 1}:{column + 1}"

    @classmethod
    def at(cls, message: str, mark: Any) -> "Malformed":
        """Returns the problem at one of PyYAML's marks; some of its errors have none."""
        return cls(message, mark.line, mark.column) if mark else cls(message)


def build(node: yaml.Node | None) -> Any:
    """Returns the plain data that a node stands for.

    Raises:
        Malformed: it is no plain data, a key occurs twice, or aliases expand beyond reason.
    """
    return _Builder().of(node)


def parse_json(text: str) -> Any:
    """Returns the plain data in a text of JSON, None when it is blank.

    Raises:
        Malformed: it does not parse, or a key occurs twice.
    """
    try:
        return (
            None
            if not text.strip()
            else json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_constant, parse_float=_float)
        )
    except json.JSONDecodeError as error:
        raise Malformed(error.msg, error.lineno - 1, error.colno - 1) from error
    except RecursionError as error:
        raise Malformed("is nested too deeply") from error
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed(str(error)) from error


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Malformed(f"key {key!r} occurs twice in one object")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise Malformed(f"{name} is not JSON")


_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """Resolves JSON's types only."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML's own way to say it


for _kind, _pattern, _first in (
    ("null", r"(~|null|Null|NULL|)\Z", ["~", "n", "N", ""]),
    ("bool", r"(true|True|TRUE|false|False|FALSE)\Z", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)\Z", list("-+0123456789")),
    ("float", r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\Z", list("-+.0123456789")),
    ("merge", r"<<\Z", ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(_pattern, re.ASCII), _first)


def compose(text: str) -> yaml.Node | None:
    """Returns the tree of the one document in a text, or None when there is none.

    Raises:
        Malformed: it does not parse.
    """
    if bad := yaml.reader.Reader.NON_PRINTABLE.search(text):
        before = text[: bad.start()]
        column = len(before) - (before.rfind("\n") + 1)
        raise Malformed(f"character {bad[0]!r} is not allowed in YAML", before.count("\n"), column)
    try:
        # libyaml's composer recurses in C, and a few hundred thousand brackets would end the process.
        _check_depth(yaml.parse(text, _Loader))
        node: yaml.Node | None = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = ", ".join(part for part in (error.context, error.problem) if part)
        raise Malformed.at(message, mark) from error
    except yaml.YAMLError as error:
        raise Malformed(str(error)) from error
    return node


def _check_depth(events: Iterator[yaml.Event]) -> None:
    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise Malformed.at(f"is nested deeper than {MAX_DEPTH} levels", event.start_mark)


class _Builder:
    """Turns nodes into plain data. Aliased nodes are built anew each time, so the count sees what aliases expand to."""

    def __init__(self) -> None:
        self._values = 0

    def of(self, node: yaml.Node | None, depth: int = 0) -> Any:
        if node is None:
            return None
        self._values += 1
        if self._values > MAX_VALUES:
            raise Malformed.at(f"expands to more than {MAX_VALUES} values", node.start_mark)
        if depth > MAX_DEPTH:
            raise Malformed.at(f"is nested deeper than {MAX_DEPTH} levels, or holds itself", node.start_mark)
        if node.tag == _TAG + "map":
            return self._mapping(node, depth + 1)
        if node.tag == _TAG + "seq":
            return self._sequence(node, depth + 1)
        return _scalar(node)

    def _mapping(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise Malformed.at("is tagged as a mapping and is none", node.start_mark)
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                merged = self._merged(value, depth) | merged
            elif not isinstance(key, yaml.ScalarNode):
                raise Malformed.at("a key must be text", key.start_mark)
            elif key.value in own:
                line = first[key.value] + 1
                raise Malformed.at(f"key {key.value!r} occurs twice; first on line {line}", key.start_mark)
            else:
                first[key.value] = key.start_mark.line
                own[key.value] = self.of(value, depth)
        return merged | own

    def _merged(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        """Returns what `<<:` brings in; of several mappings, the first that has a key wins."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[str, Any] = {}
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                raise Malformed.at("<< takes a mapping or a list of mappings", source.start_mark)
            found = self.of(source, depth) | found
        return found

    def _sequence(self, node: yaml.Node, depth: int) -> list[Any]:
        if not isinstance(node, yaml.SequenceNode):
            raise Malformed.at("is tagged as a list and is none", node.start_mark)
        return [self.of(item, depth) for item in node.value]


def _scalar(node: yaml.Node) -> Any:
    tag = node.tag.removeprefix(_TAG)
    convert = _CONVERT.get(tag)
    if convert is None or not isinstance(node, yaml.ScalarNode):
        raise Malformed.at(f"tag {node.tag!r} is not allowed: only plain data is read", node.start_mark)
    try:
        return convert(node.value)
    except ValueError as error:
        raise Malformed.at(f"not {'an' if tag == 'int' else 'a'} {tag}: {error}", node.start_mark) from error


def _null(text: str) -> None:
    return None


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text:.40} is neither true nor false")
    return text.lower() == "true"


def _float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text:.40} is not finite")
    return value


_CONVERT: dict[str, Callable[[str], Any]] = {
    "str": str,
    "null": _null,
    "bool": _bool,
    "int": int,
    "float": _float,
    "merge": str,
}

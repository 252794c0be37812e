"""What a word of the command line or the environment means."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtilla.plain_data import parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("1.5", 1.5),
        ("1e-3", 0.001),
        ("true", True),
        ("null", None),
        ("[a, b]", ["a", "b"]),
        ('{"a": {b: 1}}', {"a": {"b": 1}}),
        ("'5'", "5"),
        ('"true"', "true"),
    ],
)
def test_what_looks_like_data_is_data(text: str, value: Any) -> None:
    """Numbers, true, false, null, lists and mappings are read; quotes make text of them."""
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *["", "text", "no", "off", "007", "12:30", "2024-01-31", "1_000", "0x1F", "a: b", "- a", "a # b", "5 # five"],
        *["[a", "*a", "&a b", "!!int 5", "| x", "@x", "%x", "--- 5", ".nan", "1e999", "a\x07", "~a", "C:\\temp", "2GB"],
        *["redis://:p@ss@host:6379/0", "warning: disk full", " padded text ", "9" * 5000, "[" * 200],
    ],
)
def test_everything_else_stays_the_text_it_is(text: str) -> None:
    """Text is never cut, converted or refused, whatever YAML might make of it."""
    assert parse_value(text) == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(value=json_values)
def test_json_is_read_as_json(value: Any) -> None:
    """Every JSON document means itself."""
    assert parse_value(json.dumps(value)) == value


@given(text=st.text())
def test_any_text_is_accepted(text: str) -> None:
    """No text raises."""
    parse_value(text)

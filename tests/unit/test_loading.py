"""Workflow files: what is read, and how everything else is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowtilla.errors import InvalidWorkflow
from flowtilla.loading import MAX_BYTES, load_workflow
from flowtilla.workflow import Stage, Workflow

GOOD = """\
kind: workflow
metadata: {name: build_features, annotations: {group: nowcast, since: 2024-01-31, at: 12:30, country: no, zip: 007}}
spec:
  stages:
    - {name: cities, target: my_pkg.stages.create_city_list}
    - name: fetch
      target: my_pkg.stages.fetch_city
      type: parameterized
      depends_on: [cities]
      resources: {cpus: 1, memory: 2GB, hamster_wheels: 1}
      retries: 2
      timeout: 90s
"""


def refusal(path: Path, content: str | bytes) -> str:
    """Returns what is said about a file, with its folder left out."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidWorkflow) as caught:
        load_workflow(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_yaml_is_read_as_people_mean_it(tmp_path: Path) -> None:
    """Dates, times, country codes and postal codes stay text; units and numbers become what they are."""
    path = tmp_path / "workflow.yaml"
    path.write_text(GOOD)

    workflow = load_workflow(path)

    assert workflow.metadata.annotations == {
        "group": "nowcast",
        "since": "2024-01-31",
        "at": "12:30",
        "country": "no",
        "zip": "007",
    }
    fetch = workflow.stages[1]
    assert (fetch.depends_on, fetch.timeout, fetch.retries and fetch.retries.count) == (("cities",), 90.0, 2)


def test_every_source_gives_the_same_workflow(tmp_path: Path) -> None:
    """A YAML file, a JSON file, a path as text, a mapping and a Workflow load as equals."""
    (tmp_path / "w.yml").write_text(GOOD)
    expected = load_workflow(tmp_path / "w.yml")
    (tmp_path / "w.JSON").write_text("\ufeff" + json.dumps(expected.to_wire(), indent="\t"))

    assert load_workflow(str(tmp_path / "w.JSON")) == expected
    assert load_workflow(expected.to_wire()) == expected
    assert load_workflow(expected) is expected


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    """Aliases and `<<` save people repetition; a stage's own keys go before merged ones."""
    path = tmp_path / "w.yaml"
    path.write_text(
        """
kind: workflow
metadata: {name: merged}
spec:
  stages:
    - &base {name: a, target: m.f, timeout: 5s, retries: 1}
    - {<<: *base, name: b, depends_on: [a]}
    - {name: c, <<: [{target: m.g}, *base]}
"""
    )

    _, second, third = load_workflow(path).stages

    assert (second.name, second.target, second.timeout) == ("b", "m.f", 5.0)
    assert (third.name, third.target, third.timeout) == ("c", "m.g", 5.0)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("my_pkg.stages.fetch_city", "fetch", "w.yaml:7: spec.stages[1].target: 'fetch' is not a dotted path"),
        ("[cities]", "[towns]", "w.yaml:9: spec: stages[1].depends_on[0]: no stage is named 'towns'"),
        ("2GB", "2GG", "w.yaml:10: spec.stages[1].resources.memory: '2GG' is not a size"),
        ("retries: 2", "retires: 2", "w.yaml:11: spec.stages[1].retires: unknown key"),
        ("      type: parameterized\n", "", "w.yaml:8: "),
        ("kind: workflow", "kind: flow", "w.yaml:1: kind: should be 'workflow'"),
        ("name: build_features", "name: a/b", "w.yaml:2: metadata.name: "),
        (
            "- name: fetch",
            "- name: cities",
            "w.yaml:6: spec: stages[1].name: 'cities' is already the name of stages[0]",
        ),
    ],
)
def test_a_broken_rule_is_told_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    """Each rule's error has file, line and the field's path."""
    broken = GOOD.replace(old, new)
    if "type:" in old:
        broken = broken.replace("depends_on: [cities]", "depends_on: [fetch]")
        said += "spec: stages depend on each other in a circle"
        said = said.replace("w.yaml:8", "w.yaml:3")

    assert said in refusal(tmp_path / "w.yaml", broken)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: 1\nb: [1, 2\n", "w.yaml:3:1: while parsing a flow sequence"),
        ("a:\n\tb: 1", "w.yaml:2:1: "),
        ("a: 1\nb: 2\na: 3", "w.yaml:3:1: key 'a' occurs twice; first on line 1"),
        ("a: 1\n---\nb: 2", "w.yaml:2:1: expected a single document in the stream, but found another document"),
        ("a: *b", "w.yaml:1:4: found undefined alias"),
        ("a: &a [*a]", "w.yaml:1:4: is nested deeper than 100 levels, or holds itself"),
        ("a: !!python/object/apply:os.system [ls]", "is not allowed: only plain data is read"),
        ("a: !!binary aGVsbG8=", "w.yaml:1:4: tag 'tag:yaml.org,2002:binary' is not allowed"),
        ("a: !!int x", "w.yaml:1:4: not an int"),
        ("a: !!bool x", "w.yaml:1:4: not a bool"),
        ("a: 1e999", "w.yaml:1:4: not a float: 1e999 is not finite"),
        ("? [a]\n: b", "w.yaml:1:3: a key must be text"),
        ("<<: 5", "w.yaml:1:5: << takes a mapping"),
        ("a: b\x07", "w.yaml:1:5: character '\\x07' is not allowed in YAML"),
        ("a: b\0", "w.yaml:1:5: character '\\x00' is not allowed in YAML"),
        (b"a: \xff", "w.yaml: is not UTF-8 text: byte 3 is 0xff"),
        ("", "w.yaml: is empty"),
        ("# later\n", "w.yaml: is empty"),
        ("[1]", "w.yaml: holds a list, where a mapping is expected"),
        ("just text", "w.yaml: holds text, where a mapping is expected"),
        ("x" * (MAX_BYTES + 1), f"w.yaml: is larger than {MAX_BYTES} bytes"),
    ],
)
def test_yaml_that_is_no_mapping_is_refused_with_its_place(tmp_path: Path, content: str | bytes, said: str) -> None:
    """What does not parse, or is more than plain data, is refused with line and column."""
    assert said in refusal(tmp_path / "w.yaml", content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a":\n  1,}', "w.json:2:"),
        ('{"a": 1, "a": 2}', "w.json: key 'a' occurs twice in one object"),
        ('{"a": NaN}', "w.json: NaN is not JSON"),
        ("[" * 100_000, "w.json: is nested too deeply"),
        ("1" * 5000, "w.json: "),
        ("  ", "w.json: is empty"),
        ("null", "w.json: is empty"),
        ("[]", "w.json: holds a list"),
    ],
)
def test_json_that_is_no_mapping_is_refused(tmp_path: Path, content: str, said: str) -> None:
    """The same holds for JSON, where a key given twice is refused too."""
    assert said in refusal(tmp_path / "w.json", content)


@pytest.mark.parametrize("opening", ["[", "- ", "{a: ", "? "])
def test_a_file_of_brackets_does_not_end_the_process(tmp_path: Path, opening: str) -> None:
    """Nesting that would overflow the C stack of the YAML library is refused first."""
    assert "is nested deeper than 100 levels" in refusal(tmp_path / "w.yaml", opening * (MAX_BYTES // len(opening)))


def test_an_alias_bomb_is_refused_in_time(tmp_path: Path) -> None:
    """A few hundred bytes that stand for a billion values are refused."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]

    assert "expands to more than 500000 values" in refusal(tmp_path / "w.yaml", "\n".join(lines))


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the working directory, against which the path counts."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InvalidWorkflow, match=f"flow.yaml: there is no such file; the working directory is {tmp_path}"):
        load_workflow("flow.yaml")


@pytest.mark.parametrize("source", ["", ".", "a\0b", "x" * 5000, 5, None, ["a"]])
def test_what_is_no_file_is_refused(source: Any) -> None:
    """A directory, an impossible path and things that are no path at all are refused alike."""
    with pytest.raises(InvalidWorkflow):
        load_workflow(source)


texts = st.one_of(
    st.text(),
    st.binary(),
    # Text that looks like YAML reaches further than text that does not.
    st.lists(st.sampled_from([*"[]{}:,&*!|>'\"%@#-? \n\t", "a", "1", "<<", "spec", "stages", "kind", "---"])).map(
        "".join
    ),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["kind", "spec", "metadata", "stages"]), inner),
    ).map(lambda data: yaml.safe_dump(data)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=texts, suffix=st.sampled_from(["yaml", "json"]))
def test_arbitrary_files_raise_nothing_else(tmp_path: Path, content: str | bytes, suffix: str) -> None:
    """Whatever a file holds, it is refused with InvalidWorkflow."""
    refusal(tmp_path / f"w.{suffix}", content)


names = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
notes = st.text(st.characters(codec="utf-8", exclude_categories=["C"]))


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    """A valid workflow of a few stages, each depending on some before it."""
    stages: list[Stage] = []
    for name in draw(st.lists(names, min_size=1, max_size=5, unique=True)):
        parents = draw(st.lists(st.sampled_from([one.name for one in stages]), max_size=3)) if stages else []
        timeout = draw(st.none() | st.integers(1, 10**6))
        resources = draw(st.none() | st.dictionaries(st.sampled_from(["cpus", "wheels"]), st.integers(0, 9)))
        fields = {"name": name, "target": "m.f", "depends_on": parents, "timeout": timeout, "resources": resources}
        stages.append(Stage.model_validate(fields))
    return Workflow(draw(names), stages, annotations=draw(st.dictionaries(notes, notes, max_size=3)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(workflow=workflows(), style=st.sampled_from([None, '"', "|"]))
def test_a_workflow_survives_a_file(tmp_path: Path, workflow: Workflow, style: str | None) -> None:
    """A workflow written as JSON or YAML, in any style, and read again is the same."""
    (tmp_path / "w.json").write_text(json.dumps(workflow.to_wire()))
    # What YAML 1.1 leaves unquoted and 1.2 reads as a number, such as 1e3, is quoted here.
    quoted = '"' if style is None and any(c in "eE." for c in repr(workflow)) else style
    (tmp_path / "w.yaml").write_text(yaml.safe_dump(workflow.to_wire(), default_style=quoted, allow_unicode=True))

    assert load_workflow(tmp_path / "w.json") == workflow
    assert load_workflow(tmp_path / "w.yaml") == workflow

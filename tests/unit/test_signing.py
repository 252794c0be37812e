"""Signatures: who holds no key can neither write a run nor change one."""

import json
import secrets
import zlib
from itertools import pairwise
from typing import Any

import pytest

from flowtilla import message
from flowtilla.config import load, shown
from flowtilla.errors import ConfigurationError, NotGenuine
from flowtilla.settings import Settings, SigningSettings
from flowtilla.signing import check_run, sign_run
from flowtilla.submission import prepare

OLD, NEW, FOREIGN = (secrets.token_hex(32) for _ in range(3))
WORKFLOW = {"kind": "workflow", "metadata": {"name": "w"}, "spec": {"stages": [{"name": "a", "target": "jobs.a"}]}}
RUN = ("r1", "research", "default", b'["flowtilla.job.run"]')


def signing(active: str | None = "new", required: bool = True, **keys: str) -> SigningSettings:
    return SigningSettings.model_validate({"keys": keys or {"new": NEW}, "active": active, "required": required})


def fields(settings: Settings, **options: Any) -> dict[str, Any]:
    """Returns the fields of the job of a submission."""
    args = prepare(settings, WORKFLOW, **options).args[4:]
    return dict(zip(args[::2], args[1::2], strict=True))  # type: ignore[arg-type]


def test_what_was_signed_is_accepted() -> None:
    """The same key, the same words."""
    check_run(signing(), sign_run(signing(), *RUN), *RUN)


@pytest.mark.parametrize("position", range(4), ids=["run id", "namespace", "queue", "message"])
def test_nothing_can_be_exchanged(position: int) -> None:
    """A signature of one run is none of another: not of another id, namespace, queue or message."""
    other: list[Any] = list(RUN)
    other[position] = b"[]" if position == 3 else "other"
    with pytest.raises(NotGenuine, match="something was changed"):
        check_run(signing(), sign_run(signing(), *RUN), *other)


def test_words_cannot_be_moved_from_one_into_the_next() -> None:
    """What parts the words of a run can be in none of them."""
    signature = sign_run(signing(), "r", 'a","b', "q", b"m")
    for words in [("r", "a", 'b","q', b"m"), ('r","a', "b", "q", b"m"), ("r", 'a","b","q"]\nm', "", b"")]:
        with pytest.raises(NotGenuine):
            check_run(signing(), signature, *words)


@pytest.mark.parametrize("signature", ["new:", "new", ":", "new:" + "0" * 64, "new:é", "\x00", "NEW:" + "0" * 64])
def test_rubbish_is_no_signature(signature: str) -> None:
    """Whatever stands there, the answer is that the run is not genuine."""
    with pytest.raises(NotGenuine):
        check_run(signing(), signature, *RUN)


def test_a_key_that_nobody_knows_is_named() -> None:
    """The error names the key, the keys that are known, and what to do."""
    foreign = sign_run(signing("foreign", foreign=FOREIGN), *RUN)
    with pytest.raises(NotGenuine, match=r"key 'foreign', and the keys known here are old, new.*same `signing`"):
        check_run(signing(old=OLD, new=NEW), foreign, *RUN)


def test_keys_are_rotated_without_a_gap() -> None:
    """Both keys are accepted wherever either signs, in each step of a rotation; the old one no more after it."""
    steps = [
        signing("old", old=OLD),
        signing("old", old=OLD, new=NEW),
        signing("new", old=OLD, new=NEW),
        signing("new", new=NEW),
    ]
    for producer, worker in [*pairwise(steps), *pairwise(steps[::-1])]:
        check_run(worker, sign_run(producer, *RUN), *RUN)
    with pytest.raises(NotGenuine, match="key 'old'"):
        check_run(steps[-1], sign_run(steps[0], *RUN), *RUN)


def test_unsigned_runs_are_refused_unless_the_settings_say_otherwise() -> None:
    """With keys a signature is required; a false one is refused even where none is; without keys none is read."""
    with pytest.raises(NotGenuine, match="no signature"):
        check_run(signing(), "", *RUN)
    lenient = signing(required=False)
    check_run(lenient, "", *RUN)
    with pytest.raises(NotGenuine):
        check_run(lenient, "new:0", *RUN)
    check_run(SigningSettings(), "anything", *RUN)


def test_a_submitted_run_carries_its_signature() -> None:
    """Small and compressed messages alike; RQ may compress anew what it requeues."""
    settings = Settings(signing=signing())
    for given in ({}, {"text": "x" * 5000}):
        job = fields(settings, input=given, namespace="research", queue="high", run_id="r1")
        body = message.unpack(zlib.compress(message.unpack(job["data"], settings.max_message)), settings.max_message)
        check_run(settings.signing, job["signature"], "research--r1", "research", "high", body)
        assert message.parse(body).input == given
    assert "signature" not in fields(Settings())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"keys": {"new": NEW}}, "in active the id of the one that signs"),
        ({"required": True}, "signing needs keys"),
        ({"keys": {"new": NEW}, "active": "old"}, "active is 'old', and keys has new"),
        ({"keys": {"new": "hunter2-hunter2"}, "active": "new"}, "secrets of new are too short"),
        ({"keys": {"a b": NEW}, "active": "a b"}, "is not allowed"),
        ({"keys": {"new": 5}, "active": "new"}, "signing.keys.new"),
        ({"keyz": {"new": NEW}}, "did you mean 'keys'"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], said: str) -> None:
    """The error says what is missing, and no secret."""
    with pytest.raises(ConfigurationError) as caught:
        load(env={}, overrides={"signing": given})
    assert said in str(caught.value)
    assert NEW not in str(caught.value) and "hunter2" not in str(caught.value)


def test_the_environment_gives_keys(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one variable, or each its own."""
    monkeypatch.chdir(tmp_path)
    for env in (
        {"FLOWTILLA__SIGNING": json.dumps({"keys": {"2026-10": NEW}, "active": "2026-10"})},
        {"FLOWTILLA__SIGNING__KEYS__K1": NEW, "FLOWTILLA__SIGNING__ACTIVE": "k1"},
    ):
        settings = load(env=env).signing
        check_run(settings, sign_run(settings, *RUN), *RUN)


def test_secrets_are_masked_everywhere() -> None:
    """Neither `repr`, nor `config show`, nor JSON says a secret; the keys' ids they do."""
    settings = Settings(signing=signing("old", old=OLD, new=NEW))
    for text in (repr(settings), str(settings), str(shown(settings)), settings.model_dump_json()):
        assert OLD not in text and NEW not in text
    assert shown(settings)["signing"] == {
        "keys": {"old": "**********", "new": "**********"},
        "active": "old",
        "required": True,
    }

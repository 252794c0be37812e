"""A client reads what somebody damaged: it gets data, or an error that says so, and never anything else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

import flowtilla
from attacks import Attacker, look_at
from flowtilla import keys
from flowtilla.errors import RunDamaged, StorageError
from flowtilla.run import Run
from flowtilla.settings import Settings
from flowtilla.storage.logs import store_log
from flowtilla.storage.results import store_result
from flowtilla.submission import prepare
from flowtilla_worker.dev.embedded import EmbeddedValkey

WORKFLOW = flowtilla.Workflow("w", [{"name": "a", "target": "jobs.a"}, {"name": "b", "target": "jobs.b"}])


class Reader(flowtilla.Client):
    """A client of the server, which can write damaged runs too."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url, settings=Settings.model_validate({"storage": {"base_path": str(folder)}}))

    def job(self, run_id: str) -> dict[str, Any]:
        """Returns the fields of the job of a run."""
        args = prepare(self.settings, WORKFLOW, run_id=run_id, input={"x": 1}).args[4:]
        return dict(zip(args[::2], args[1::2], strict=True))  # type: ignore[arg-type]

    def put(self, run_id: str, **fields: Any) -> Run:
        """Writes a job."""
        self._redis.hset(keys.job(run_id), mapping=self.job(run_id) | fields)
        return Run(run_id, self._redis, self.settings)


@pytest.fixture
def reader(server: EmbeddedValkey, redis: Redis, tmp_path: Path) -> Iterator[Reader]:
    with Reader(server.url, tmp_path) as started:
        yield started


@pytest.mark.parametrize("seed", range(2))
def test_whatever_stands_in_redis_a_client_says_what_is_wrong(reader: Reader, tmp_path: Path, seed: int) -> None:
    """Hundreds of attacks on jobs, stages, logs and what all runs share; each is looked at in every way."""
    record = store_result(reader.settings.storage.model_dump(mode="json"), "other", "theirs", "x")["record"]
    evil = Attacker(reader._redis, seed, str(tmp_path / "unpickled"), reader.job, reader.job, [record])
    for _ in range(250):
        undo = evil.attack()
        if evil.runs:
            look_at(reader, evil.runs[-1])
        undo()
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attempt": "many"}, "invalid literal"),
        ({"tags": "5"}, "tuple"),
        ({"failure": '{"error": 5}'}, "ErrorRecord"),
        ({"created_at": "yesterday"}, "does not match format"),
        ({"result_reference": "[" * 5000}, "nested too deeply"),
        ({"log_reference": "NaN"}, "not finite"),
    ],
)
def test_a_damaged_run_is_named(reader: Reader, fields: dict[str, str], said: str) -> None:
    """The error names the run and what is wrong; the list of runs leaves it out, and has the others."""
    damaged, fine = reader.put("default--r1", **fields), reader.put("default--r2")
    for run in (damaged, fine):
        reader._redis.zadd(keys.runs("default"), {run.id: 1})
    reader._redis.sadd(keys.NAMESPACES, "default")
    with pytest.raises(RunDamaged, match=f"run default--r1 cannot be read.*{said}") as caught:
        _ = damaged.record
    assert caught.value.run_id == "default--r1"
    assert reader.runs() == [fine]


def test_a_run_whose_keys_are_of_another_type_hides_no_other(reader: Reader) -> None:
    """A list goes on behind it."""
    fine = reader.put("default--r2")
    reader._redis.set(keys.job("default--r1"), "x")
    reader._redis.set(keys.stages("default--r2"), "x")
    reader._redis.zadd(keys.runs("default"), {"default--r1": 2, "default--r2": 1, b"\xff": 3})
    reader._redis.sadd(keys.NAMESPACES, "default", b"\xff")
    assert reader.runs() == [fine]


def test_half_a_surrogate_pair_is_shown(reader: Reader) -> None:
    """What an exception said is shown, though it holds what nobody can print."""
    run = reader.put(
        "default--r1", status="failed", failure=r'{"error": "E", "message": "file \udcff and \ud83d\ude00"}'
    )
    assert run.record.error is not None
    assert run.record.error.message == "file ? and \N{GRINNING FACE}"


def test_a_reference_to_another_run_is_not_followed(reader: Reader) -> None:
    """Neither as a result, nor as a log, nor as an artifact."""
    data = reader.settings.storage.model_dump(mode="json")
    theirs = store_result(data, "other", "other--theirs", "a secret")
    log = store_log(reader.settings.storage, "other", "other--theirs", "a secret")
    run = reader.put(
        "default--r1", status="finished", result_reference=json.dumps(theirs), log_reference=json.dumps(log)
    )
    reader._redis.xadd(keys.results(run.id), {"type": "1", "stored": "1"})
    with pytest.raises(StorageError, match="not run default--r1"):
        run.result(timeout=1)
    with pytest.raises(StorageError, match="not run default--r1"):
        list(run.logs())
    stage = {"state": "finished", "artifacts": [theirs["record"]]}
    reader._redis.hset(keys.stages(run.id), "a", json.dumps(stage))
    with pytest.raises(RunDamaged, match="another run did"):
        _ = run.artifacts

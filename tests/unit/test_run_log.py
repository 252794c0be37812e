"""The whole log of a run, over attempts that die and a Redis that forgets."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowtilla.errors import StorageError
from flowtilla.logs import LogLine
from flowtilla_worker.engine import log as module
from flowtilla_worker.engine.log import RunLog

#: A small part, and a Redis that keeps twice as much.
PART, KEPT = 5, 10


def lines(first: int, count: int) -> list[LogLine]:
    return [LogLine("r", "s", None, 1, 0.0, "h", "stdout", "INFO", f"line {first + i} ø") for i in range(count)]


def said(text: str | None) -> list[str]:
    return [LogLine.from_json("r", line).message for line in (text or "").splitlines()]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.integers(0, PART), st.just("dies"), st.just("storage fails")), max_size=25))
def test_nothing_that_was_written_is_missing(monkeypatch: pytest.MonkeyPatch, steps: list[int | str]) -> None:
    """Whatever is written, stored and lost between attempts, the log ends whole and in order.

    Storage may fail once between two parts: what Redis keeps covers that.
    """
    monkeypatch.setattr(module, "PART", PART)
    stored: dict[str, str] = {}
    failing = False

    def store(text: str) -> dict[str, Any]:
        if failing:
            raise StorageError("as drawn")
        stored[str(len(stored))] = text
        return {"key": str(len(stored) - 1)}

    async def play() -> None:
        nonlocal failing
        log, parts, stream, written = RunLog(store), "[]", [], 0
        for step in steps:
            if step == "dies":
                known = json.loads(parts)
                after = known[-1]["until"] if known else 0
                log.close()
                log = RunLog(store)
                text = "".join(stored[part["record"]["key"]] for part in known)
                log.resume(text, [(n, line) for n, line in stream if n > after], known)
            elif step == "storage fails":
                failing = True
            else:
                log.add(lines(written, int(step)))
                written += int(step)
                field = await log.keep()
                failing = False
                taken, first = log.take()
                stream += [(first + i, line.to_json()) for i, line in enumerate(taken)]
                del stream[: -2 * KEPT]
                parts = field.get("log_parts", parts)
        assert said(log.whole()) == [f"line {i} ø" for i in range(written)]
        log.close()

    asyncio.run(play())


def test_a_log_without_lines_is_none() -> None:
    """A run that wrote nothing has no file."""
    assert RunLog(lambda text: {}).whole() is None

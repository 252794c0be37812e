"""What an attempt has to report: which writes it makes, and what follows when one is refused."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ResponseError

from flowtilla.errors import LeaseLost
from flowtilla.record import StageRecord
from flowtilla.states import StageState
from flowtilla_worker.attempt import Notes
from flowtilla_worker.engine.halt import Halt
from flowtilla_worker.engine.journal import Journal
from flowtilla_worker.engine.log import RunLog


class Writes:
    """Takes the writes of an attempt, and answers when it is told to."""

    def __init__(self) -> None:
        self.notes: list[Notes] = []
        self.answers: list[asyncio.Future[bool]] = []

    async def write(self, notes: Notes) -> bool:
        self.notes.append(notes)
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


class Halts(list[Halt]):
    """Takes why the run was halted, and in which words."""

    def __call__(self, why: Halt, reason: str = "") -> None:
        self.append(why)
        self.reason = reason


def journal_on(writes: Any, halts: Halts) -> Journal:
    return Journal(writes, RunLog(lambda text: {}), 4, halts, careful=False)


def ended(name: str) -> StageRecord:
    return StageRecord(name, StageState.FINISHED, started=1.0, ended=2.0)


async def turns() -> None:
    """Lets whatever can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_commits_that_come_while_one_is_written_go_with_the_next() -> None:
    """One write is under way at a time; the first begins at once, and none is left over."""

    async def scenario() -> None:
        writes = Writes()
        journal = journal_on(writes, Halts())
        journal.commit_soon(ended("a"), '{"value":1}')
        await turns()
        journal.commit_soon(ended("b"), '{"value":2}')
        journal.commit_soon(ended("c"), None)
        await turns()
        assert [list(notes.values) for notes in writes.notes] == [["a"]]

        writes.answers[0].set_result(False)
        await turns()
        assert [list(notes.values) for notes in writes.notes] == [["a"], ["b"]]
        assert {record.name for record in writes.notes[1].stages} == {"b", "c"}

        writes.answers[1].set_result(False)
        await turns()
        assert len(writes.notes) == 2
        await journal.close()

    asyncio.run(scenario())


def test_what_ends_the_run_takes_commits_that_wait() -> None:
    """They are not written twice."""

    async def scenario() -> None:
        writes = Writes()
        journal = journal_on(writes, Halts())
        journal.commit_soon(ended("a"), '{"value":1}')
        last = journal.take()
        await turns()

        assert (dict(last.values), [record.name for record in last.stages]) == ({"a": '{"value":1}'}, ["a"])
        assert not writes.notes or writes.notes[0].values == {}
        await journal.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "halts"),
    [(LeaseLost("lost"), [Halt.LOST]), (ResponseError("WRONGTYPE"), [Halt.BROKE])],
)
def test_a_commit_that_is_refused_stops_the_run_though_nobody_waits_for_it(error: Exception, halts: list[Halt]) -> None:
    """What was to be written is lost: the attempt must not end well."""

    async def scenario() -> None:
        writes, halted = Writes(), Halts()
        journal = journal_on(writes, halted)
        journal.commit_soon(ended("a"), '{"value":1}')
        await turns()
        writes.answers[0].set_exception(error)
        await turns()

        assert halted == halts
        assert ("WRONGTYPE" in halted.reason) == (halts == [Halt.BROKE])
        await journal.close()

    asyncio.run(scenario())

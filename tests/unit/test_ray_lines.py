"""Log lines of a Ray task reach the worker once each, whichever way they take."""

import pickle
from queue import SimpleQueue

import pytest

pytest.importorskip("ray")

from flowtilla_executors.ray.lines import Inbox


class Reader:
    """An inbox, and what came out of it: lines, and how many of an outcome's own had been seen before."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.outcomes: list[int] = []
        self.inbox = Inbox(lambda content: self.lines.extend(pickle.loads(content)))

    def close(self, sent: int, unsure: bool = False) -> None:
        self.inbox.close("1-a", sent, unsure, self.outcomes.append)


@pytest.fixture
def reader() -> Reader:
    return Reader()


def test_an_outcome_waits_for_the_lines_before_it(reader: Reader) -> None:
    """It comes after the last line that was sent."""
    reader.close(2)
    assert reader.outcomes == []

    reader.inbox.take("1-a", 0, ["one"])
    assert reader.outcomes == []

    reader.inbox.take("1-a", 1, ["two"])
    assert reader.outcomes == [0]
    assert reader.lines == ["one", "two"]


def test_a_batch_sent_again_is_taken_once(reader: Reader) -> None:
    """Lines that the sender was not sure of, and sends again with more, are not doubled."""
    reader.inbox.take("1-a", 0, ["one"])
    reader.inbox.take("1-a", 0, ["one", "two"])

    assert reader.lines == ["one", "two"]


def test_lines_that_also_came_with_the_outcome_are_counted(reader: Reader) -> None:
    """The outcome is told how many of its own lines have been seen."""
    reader.inbox.take("1-a", 0, ["one", "two"])
    reader.close(0, unsure=True)

    assert reader.outcomes == [2]


def test_no_line_comes_after_the_outcome_that_has_it(reader: Reader) -> None:
    """What arrives late, and is in the outcome too, is dropped."""
    reader.close(0, unsure=True)
    reader.inbox.take("1-a", 0, ["one"])

    assert reader.outcomes == [0]
    assert reader.lines == []


def test_an_outcome_does_not_wait_for_ever(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """When lines are lost, with the mailbox that had them, the outcome still comes."""
    monkeypatch.setattr("flowtilla_executors.ray.lines._LATE", 0.0)
    outcomes: SimpleQueue[int] = SimpleQueue()

    reader.inbox.close("1-a", 1, False, outcomes.put)

    assert outcomes.get(timeout=10) == 0


def test_runs_that_are_never_closed_are_forgotten(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of calls that died; the lines of one that was forgotten too early come once all the same."""
    monkeypatch.setattr("flowtilla_executors.ray.lines._REMEMBERED", 10)
    reader.inbox.take("1-a", 0, ["one"])
    for number in range(2, 100):
        reader.inbox.take(f"{number}-a", 0, ["other"])
        reader.inbox.close(f"{number}-b", 0, True, lambda _: None)
    reader.lines.clear()

    reader.inbox.take("1-a", 1, ["two"])

    assert reader.lines == ["two"]
    assert len(reader.inbox._seen) == len(reader.inbox._closed) == 10


def test_the_tries_of_a_call_have_lines_of_their_own(reader: Reader) -> None:
    """What a try wrote that died is not taken for what the next one writes."""
    reader.inbox.take("1-a", 0, ["first"])
    reader.inbox.take("1-b", 0, ["first"])

    assert reader.lines == ["first", "first"]

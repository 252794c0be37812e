"""Which calls Ray is asked to tell of, and when; Ray itself is not needed for that."""

import threading
from concurrent.futures import Future
from typing import Any

import pytest

pytest.importorskip("ray")

from fleet import until
from flowtilla_executors.ray.completions import Completions, Entry


class Reply:
    """A reference that counts who asked for it."""

    def __init__(self) -> None:
        self.asked: list[Future[Any]] = []

    def future(self) -> "Future[Any]":
        self.asked.append(Future())
        return self.asked[-1]


def entries(*parents: list[int]) -> list[Entry]:
    """Returns calls by the places of their parents."""
    made: list[Entry] = []
    for number, above in enumerate(parents):
        made.append(Entry(number, None, Reply(), [made[place] for place in above]))
    return made


def asked(calls: list[Entry]) -> list[int]:
    return [len(each.reply.asked) for each in calls]


def test_only_what_no_other_of_the_turn_takes_is_asked_for() -> None:
    """And what a later turn takes was asked for already."""
    completions = Completions(lambda _: None)
    first, second, third = calls = entries([], [0], [0])
    for each in (first, second):
        completions.add(each)
    completions.end_turn()
    assert asked(calls) == [0, 1, 0]

    completions.add(third)
    completions.end_turn()
    assert asked(calls) == [0, 1, 1]


def test_what_has_a_time_limit_can_be_asked_for_at_once() -> None:
    """Once, however often."""
    completions = Completions(lambda _: None)
    first, second = calls = entries([], [0])
    completions.add(first)
    completions.ask(first)
    completions.add(second)
    completions.end_turn()
    completions.ask(second)

    assert asked(calls) == [1, 1]


def test_the_others_are_asked_for_soon() -> None:
    """Whatever takes their values may take long."""
    told: list[list[int]] = []
    completions = Completions(lambda ended: told.append([each.number for each in ended]))
    threading.Thread(target=completions.serve, daemon=True).start()
    calls = entries([], [0], [1])
    for each in calls:
        completions.add(each)
    completions.end_turn()
    until(lambda: asked(calls) == [1, 1, 1])

    for each in calls:
        each.reply.asked[0].set_result(b"reply")
    assert told == [[0], [1], [2]]


def test_a_call_that_could_not_run_is_told_without_what_it_waits_for() -> None:
    """That may go on, and is told of when it ends."""
    told: list[list[int]] = []
    completions = Completions(lambda ended: told.append([each.number for each in ended]))
    calls = entries([], [0])
    for each in calls:
        completions.add(each)
    completions.end_turn()
    calls[1].reply.asked[0].set_exception(RuntimeError("cancelled"))

    assert told == [[1]]
    assert asked(calls) == [0, 1]

"""Who may run: first come, first served, and nobody starves."""

from dataclasses import dataclass

from flowtilla_executors.local.room import Room


@dataclass(eq=False)
class Asker:
    """As much of a call as the room looks at."""

    number: int
    need: tuple
    priority: int = 0
    settled: bool = False
    admitted: bool = False


def asking(number, priority=0, **need):
    return Asker(number, tuple(sorted(need.items())), priority)


def numbers(askers):
    return [asker.number for asker in askers]


def test_what_fits_enters_and_the_rest_waits():
    """In order, each as soon as there is room."""
    room = Room({"cpus": 2.0})
    askers = [asking(number, cpus=1) for number in range(4)]

    assert [numbers(room.enter(asker)) for asker in askers] == [[0], [1], [], []]
    assert numbers(room.leave(askers[0])) == [2]
    assert numbers(room.leave(askers[1])) == [3]
    assert numbers(room.leave(askers[2])) == []


def test_shares_add_up():
    """Ten tenths are one."""
    room = Room({"cpus": 1.0})

    assert sum(len(room.enter(asking(number, cpus=0.1))) for number in range(11)) == 10


def test_what_needs_nothing_always_enters():
    """Even when others wait."""
    room = Room({"cpus": 1.0})
    room.enter(asking(0, cpus=1))
    room.enter(asking(1, cpus=1))

    assert numbers(room.enter(asking(2))) == [2]


def test_a_later_call_passes_on_what_is_left_over():
    """The first in line waits for wheels; who needs only a spare cpu passes."""
    room = Room({"cpus": 3.0, "wheels": 1.0})
    holder = asking(0, cpus=1, wheels=1)
    room.enter(holder)

    assert numbers(room.enter(asking(1, cpus=1, wheels=1))) == []
    assert numbers(room.enter(asking(2, cpus=1))) == [2]
    assert numbers(room.enter(asking(3, cpus=1))) == []
    assert numbers(room.leave(holder)) == [1, 3]


def test_the_highest_priority_is_first_in_line():
    """Whenever it came; among equals, whoever came first."""
    room = Room({"cpus": 1.0})
    first, *waiting = [asking(number, priority, cpus=1) for number, priority in enumerate([0, 1, 0, 5, 1])]
    room.enter(first)
    assert [room.enter(asker) for asker in waiting] == [[], [], [], []]

    order = [first]
    while entered := room.leave(order[-1]):
        order += entered

    assert numbers(order) == [0, 3, 1, 4, 2]


def test_a_wide_call_does_not_starve():
    """Narrow ones do not take what comes free before it."""
    room = Room({"cpus": 2.0})
    running = [asking(0, cpus=1), asking(1, cpus=1)]
    for asker in running:
        room.enter(asker)
    room.enter(asking(2, cpus=2))

    assert numbers(room.enter(asking(3, cpus=1))) == []
    assert numbers(room.leave(running[0])) == []
    assert numbers(room.leave(running[1])) == [2]


def test_who_was_cancelled_is_passed_over():
    """And makes way for those behind."""
    room = Room({"cpus": 2.0})
    holder, wide, narrow = asking(0, cpus=1), asking(1, cpus=2), asking(2, cpus=1)
    room.enter(holder), room.enter(wide), room.enter(narrow)
    wide.settled = True

    assert numbers(room.admit()) == [2]
    assert narrow.admitted
    assert not wide.admitted


def test_a_closed_room_is_empty():
    """Nobody enters when somebody leaves."""
    room = Room({"cpus": 1.0})
    holder = asking(0, cpus=1)
    room.enter(holder), room.enter(asking(1, cpus=1))
    room.close()

    assert room.leave(holder) == []

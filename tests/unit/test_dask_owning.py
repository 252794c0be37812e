"""Which arrays the Dask executor keeps without a copy: those that nobody else can change."""

import sys
import weakref

import pytest

numpy = pytest.importorskip("numpy")
pytest.importorskip("distributed")

from flowtilla.context import Context  # noqa: E402
from flowtilla_executors import Call, Literal, Parent  # noqa: E402
from flowtilla_executors.dask.collections import keep  # noqa: E402
from flowtilla_executors.invoke import invoke  # noqa: E402

HELD = []


def fresh(size):
    return numpy.zeros(size)


def part_of_fresh(size):
    return numpy.zeros(size + 1)[1:]


async def fresh_later(size):
    return numpy.zeros(size)


def held(size):
    HELD[:] = [numpy.zeros(size)]
    return HELD[0]


def part_of_held(size):
    HELD[:] = [numpy.zeros(size + 1)]
    return HELD[0][1:]


async def held_later(size):
    return held(size)


def held_weakly(size):
    array = numpy.zeros(size)
    HELD[:] = [weakref.ref(array)]
    return array


def held_by_a_view(size):
    array = numpy.zeros(size)
    HELD[:] = [memoryview(array)]
    return array


def incremented(array):
    array += 1
    return array


def kept(function, *arguments, parents=()):
    import cloudpickle

    context = Context(run_id="", namespace="", workflow="", stage="", attempt=1, executor="dask")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        target = cloudpickle.dumps(function)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    snapshot, outcome = invoke(Call(target, context, arguments), list(parents), keep)
    assert outcome.failure is None, outcome.failure.traceback
    return snapshot


def is_copy(snapshot):
    return not isinstance(snapshot.buffers[0], memoryview)


@pytest.mark.parametrize("function", [fresh, part_of_fresh, fresh_later])
def test_what_nobody_holds_is_not_copied(function):
    """Whoever loads it gets an array of its own all the same."""
    snapshot = kept(function, Literal(1000))

    assert not is_copy(snapshot)
    one, other = snapshot.load(), snapshot.load()
    one += 1
    assert other.sum() == 0


@pytest.mark.parametrize("function", [held, part_of_held, held_later, held_weakly, held_by_a_view])
def test_what_somebody_holds_is_copied(function):
    """Or the next thing it does to it would change what was kept."""
    assert is_copy(kept(function, Literal(1000)))


def test_an_argument_that_is_returned_is_not_copied():
    """It was the stage's own."""
    first = kept(fresh, Literal(1000))
    second = kept(incremented, Parent(0), parents=[first])

    assert not is_copy(second)
    assert (first.load().sum(), second.load().sum()) == (0, 1000)

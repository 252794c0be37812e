"""What every executor must do with values, maps, arguments and errors."""

import time

import pytest

import executor_functions as f
from executor_bench import PATIENCE, call, context, over
from flowtilla.errors import ExecutorError
from flowtilla_executors import MISSING, Call, Joined, Literal, Parent

# Values


@pytest.mark.parametrize("value", [None, 0, True, 1.5, "text", b"bytes", [1, [2]], {"a": {"b": None}}, (1, 2), {3}])
def test_a_value_comes_back_as_it_was(executor, value):
    """Any value, None included, is what the function returned, of the same class."""
    found = executor.value(call(f.give, value))

    assert found == value
    assert type(found) is type(value)


def test_a_value_travels_to_the_next_call(executor):
    """A call takes its parents' values in order, each as often as it is named."""
    three, ten = executor.finished(call(f.give, 3)), executor.finished(call(f.give, 10))

    assert executor.value(call(f.add, Parent(1), Parent(0)), three, ten) == 13
    assert executor.value(call(f.add, Parent(0), Parent(0)), three) == 6


def test_keywords_and_literals_reach_the_function(executor):
    """Plain data travels with the call."""
    assert executor.value(call(f.add, [1], kwargs={"right": [2]})) == [1, 2]


def test_chunks_are_joined_in_order(executor):
    """The lists of several parents arrive as one."""
    parts = [executor.finished(call(f.give, part)) for part in ([1, 2], [], [3])]

    assert executor.value(call(f.give, Joined([0, 1, 2])), *parts) == [1, 2, 3]
    assert executor.value(call(f.double, items=over(Joined([0, 1, 2]), start=1)), *parts) == [4, 6]


def test_small_json_comes_with_the_outcome(executor):
    """The engine need not fetch a small plain value."""
    assert executor.result(call(f.give, {"a": [1, None]})).value == {"a": [1, None]}
    assert executor.result(call(f.give)).value is None
    assert executor.result(call(f.give, "x" * 100, inline=50)).value is MISSING


@pytest.mark.parametrize("value", [(1, 2), {1: "a"}, float("nan"), [{"a": {1}}]])
def test_what_json_would_change_stays_where_it_is(executor, value):
    """A value comes with the outcome only if JSON gives exactly it back."""
    assert executor.result(call(f.give, value)).value is MISSING


def test_the_outcome_describes_the_value(executor):
    """Its class, length, size and whether a map can take it."""
    listed, number = executor.result(call(f.give, [1, 2, 3])), executor.result(call(f.give, 7))

    assert (listed.kind, listed.length, listed.iterable) == ("list", 3, True)
    assert (number.kind, number.length, number.iterable) == ("int", None, False)
    assert listed.size > 0
    assert 0 < time.time() - listed.started < PATIENCE
    assert listed.ended >= listed.started


def test_what_can_be_read_once_becomes_a_list(executor):
    """Generators, async ones too, are drained where they run."""
    assert executor.value(call(f.count_up, 3)) == [0, 1, 2]
    assert executor.value(call(f.count_up_async, 3)) == [0, 1, 2]
    assert executor.value(call(f.count_up, items=over([0, 2]))) == [[], [0, 1]]


def test_async_stages_run(executor):
    """`async def` works, mapped or not."""
    assert executor.value(call(f.add_async, 1, 2)) == 3
    assert executor.value(call(f.add_async, items=over([1, 2]))) == [2, 3]


def test_a_class_stays_the_same_class(executor):
    """What one stage makes of a class of its own, the next recognises."""
    city = executor.finished(call(f.make_city))

    assert executor.value(call(f.is_city, Parent(0)), city) is True
    assert executor.fetch(city) == f.City("Oslo", [1, 2])


def test_a_function_no_import_finds_runs(executor):
    """A nested function travels as its own code."""
    import cloudpickle

    factor = 3
    target = cloudpickle.dumps(lambda x: x * factor)

    assert executor.value(Call(target, context(), (Literal(4),))) == 12


def test_a_big_array_goes_through_three_calls(executor):
    """64 MiB arrive whole and writable, and nobody's change reaches anybody else."""
    pytest.importorskip("numpy")
    size = 64 * 1024 * 1024
    first = executor.finished(call(f.random_array, size))
    second = executor.finished(call(f.increment, Parent(0)), first)
    third = executor.finished(call(f.increment, Parent(0)), second)

    sums = [executor.value(call(f.checksum, Parent(0)), each) for each in (first, second, third)]

    array = executor.fetch(first)
    expected = [array, array + 1, array + 1 + 1]
    assert sums == [[int(each.sum()), size, True] for each in expected]


# Maps


def test_a_map_keeps_the_order(executor):
    """The value of a mapped call is the list of results."""
    assert executor.value(call(f.double, items=over(list(range(100))))) == [2 * x for x in range(100)]
    assert executor.value(call(f.double, items=over([]))) == []


def test_a_map_takes_any_iterable_and_a_window_of_it(executor):
    """A set of keys or a range will do; start and stop cut."""
    numbers = executor.finished(call(f.give, {1: "a", 2: "b", 3: "c"}))

    assert executor.value(call(f.double, items=over(Parent(0))), numbers) == [2, 4, 6]
    assert executor.value(call(f.double, items=over(Parent(0), start=1, stop=2)), numbers) == [4]


def test_the_item_goes_to_its_place(executor):
    """By position among the others, or by name."""
    assert executor.value(call(f.add, "a", items=over(["b"], place=1))) == ["ab"]
    assert executor.value(call(f.add, "a", items=over(["b"], place=0))) == ["ba"]
    assert executor.value(call(f.add, "a", items=over(["b"], place="right"))) == ["ab"]


def test_failed_items_are_left_out_and_told(executor):
    """All items run; the failed ones come with their index in the whole map."""
    plain = executor.result(call(f.invert, items=over([1, 0, 2, 0])))
    indexed = executor.result(call(f.invert, items=over([1, 0, 2], start=1, indexes=[7, 9])))

    assert plain.value == [1.0, 0.5]
    assert [index for index, _ in plain.item_failures] == [1, 3]
    assert plain.failure is None
    assert plain.item_failures[0][1].error == "ZeroDivisionError"
    assert [index for index, _ in indexed.item_failures] == [7]


def test_what_is_not_iterable_cannot_be_mapped(executor):
    """The error names the stage and the class."""
    failure = executor.result(call(f.double, items=over(7), context=context("triple"))).failure

    assert failure.error == "TypeError"
    assert "'triple'" in failure.message
    assert "class int" in failure.message


# Nothing mutable is shared


def test_an_argument_belongs_to_the_call(executor):
    """What a stage does to a parent's value no other stage sees, nor a second try."""
    values = executor.finished(call(f.give, [0]))
    push = call(f.push, Parent(0))

    assert [executor.value(push, values) for _ in range(3)] == [[0]] * 3
    assert executor.fetch(values) == [0]


def test_a_literal_belongs_to_the_call(executor):
    """The same call submitted again finds its literals and keywords as they were."""
    again = call(f.push, kwargs={"values": [0]})
    literal = call(f.push, [0])

    assert [executor.value(again) for _ in range(2)] == [[0]] * 2
    assert [executor.value(literal) for _ in range(2)] == [[0]] * 2


def test_items_share_nothing(executor):
    """Broadcast values, keywords and the items themselves are fresh for each item."""
    shared = []
    broadcast = executor.finished(call(f.give, []))
    mapped = call(f.push_many, Parent(0), kwargs={"keyword": []}, items=over([shared, shared, shared]))

    assert executor.value(mapped, broadcast) == [[0, 0, 0]] * 3


def test_results_share_nothing(executor):
    """A stage may return what it keeps and change it for the next item."""
    assert executor.value(call(f.fill_buffer, items=over([1, 2, 3]))) == [[1], [2], [3]]


def test_the_input_belongs_to_the_item(executor):
    """A change to `context().input` stays with the item."""
    seen = executor.value(call(f.change_input, items=over([1, 2]), context=context(_input={"n": 1})))

    assert seen == [1, 1]


def test_a_fetched_value_belongs_to_the_caller(executor):
    """Fetching copies."""
    handle = executor.finished(call(f.give, [1]))
    executor.fetch(handle).append(2)

    assert executor.fetch(handle) == [1]


# Errors


def test_an_error_keeps_class_message_and_traceback(executor):
    """The traceback is the stage's own, from its first frame on."""
    failure = executor.result(call(f.fail, "it broke badly")).failure

    assert (failure.error, failure.message) == ("executor_functions.Flaky", "it broke badly")
    assert {"Flaky", "executor_functions.Flaky", "ValueError", "Exception"} <= set(failure.bases)
    first_frame = failure.traceback.splitlines()[1]
    assert "executor_functions.py" in first_frame
    assert failure.traceback.rstrip().endswith("executor_functions.Flaky: it broke badly")
    assert not failure.lost


def test_a_traceback_tells_causes(executor):
    """The whole chain is there."""
    traceback = executor.result(call(f.fail_with_cause)).failure.traceback

    assert "invalid literal for int()" in traceback
    assert "direct cause" in traceback


def test_an_async_error_begins_at_the_stage(executor):
    """The event loop's frames are not the stage's."""
    failure = executor.result(call(f.fail_async)).failure

    assert failure.message == "async too"
    assert "executor_functions.py" in failure.traceback.splitlines()[1]


@pytest.mark.parametrize(("function", "error"), [(f.leave, "SystemExit"), (f.interrupt, "KeyboardInterrupt")])
def test_an_exit_is_a_failure(executor, function, error):
    """A stage cannot end the process it was lent."""
    assert executor.result(call(function)).failure.error == error
    assert executor.value(call(f.give, 1)) == 1


def test_wrong_arguments_fail_the_call(executor):
    """As Python says it."""
    failure = executor.result(call(f.add, 1)).failure

    assert failure.error == "TypeError"
    assert "missing 1 required positional argument: 'right'" in failure.message


def test_an_unknown_target_fails_the_call(executor):
    """The message names it."""
    failure = executor.result(Call("executor_functions.nowhere", context())).failure

    assert failure.error == "flowtilla.errors.TargetError"
    assert "nowhere" in failure.message


def test_a_value_that_cannot_leave_fails_the_call(executor):
    """The error names the class, the stage, and what to return instead."""
    failure = executor.result(call(f.a_lock, context=context("locker"))).failure

    assert failure.error == "flowtilla.errors.ValueNotStorable"
    assert "'locker'" in failure.message
    assert "_thread.lock" in failure.message
    assert "artifact" in failure.message


def test_an_item_that_cannot_leave_fails_alone(executor):
    """The other items' results are there."""
    outcome = executor.result(call(f.lock_for_odd, items=over([0, 1, 2])))

    assert outcome.value == [0, 2]
    assert [(index, failure.error) for index, failure in outcome.item_failures] == [
        (1, "flowtilla.errors.ValueNotStorable")
    ]


def test_a_call_without_value_cannot_be_a_parent(executor):
    """Submitting on top of a failed call is refused."""
    failed = executor.submit(call(f.fail))
    executor.outcome(failed)

    with pytest.raises(ExecutorError, match="no value"):
        executor.submit(call(f.give, Parent(0)), failed)
    with pytest.raises(ExecutorError, match="no value"):
        executor.fetch(failed)

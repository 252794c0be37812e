"""Stages that return Dask's collections: computed on the cluster, left there, stored in parts."""

import gc

import pytest

import dask_stages as s
from backends import Backend
from executor_bench import call, context, making, over
from fleet import until
from flowtilla.settings import StorageSettings
from flowtilla.storage import ArtifactRecord, ArtifactStore
from flowtilla.storage.checkpoints import load_checkpoint, save_checkpoint
from flowtilla.storage.results import load_result, store_result
from flowtilla_executors import Parent


@pytest.fixture(scope="module")
def dask():
    with making(Backend("dask")) as make:
        yield make(cpus=2)


@pytest.fixture
def storage(tmp_path):
    return StorageSettings(base_path=str(tmp_path / "storage"))


def tasks(bench):
    """Returns the keys that the scheduler knows."""
    client = bench.executor.session._client
    return client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks))


def test_a_frame_goes_through_three_stages(dask):
    """As a frame, in parts that are computed once and stay where they are."""
    made = dask.finished(call(s.frame))
    doubled = dask.finished(call(s.doubled, Parent(0)), made)

    assert dask.value(call(s.total, Parent(0)), doubled) == 2 * sum(range(120))
    assert dask.value(call(s.kind, Parent(0)), doubled) == "DataFrame"


def test_an_outcome_describes_a_collection(dask):
    """Its class and size, and that it can be mapped over; how long it is nobody computes."""
    outcome = dask.result(call(s.array))

    assert outcome.kind.endswith("Array")
    assert outcome.size == 120 * 8
    assert outcome.length is None
    assert outcome.iterable


def test_a_map_takes_a_bag(dask):
    """Item by item, in order."""
    bag = dask.finished(call(s.bag))
    listed = dask.finished(call(list, Parent(0)), bag)

    assert dask.value(call(s.once_more, items=over(Parent(0))), listed) == [3 * x + 1 for x in range(24)]
    assert dask.value(call(s.once_more, items=over(Parent(0), start=22)), bag) == [67, 70]


def test_collections_may_stand_in_a_mapping(dask):
    """Beside plain values."""
    several = dask.finished(call(s.several))

    found = dask.value(call(s.computed, Parent(0)), several)

    assert found["plain"] == 1
    assert found["bag"] == [3 * x for x in range(24)]
    assert len(found["array"]) == 12


def test_an_item_may_return_a_collection(dask):
    """The list of them goes to the next stage."""
    mapped = dask.finished(call(s.bag_of, items=over([1, 2])))

    assert dask.value(call(s.computed, Parent(0)), mapped) == [[1, 1], [2, 2]]


def test_a_delayed_value_is_computed_on_the_cluster(dask):
    """And handed on as what it is."""
    delayed = dask.finished(call(s.delayed))

    assert dask.value(call(s.kind, Parent(0)), delayed) == "Delayed"


def test_what_fails_in_a_part_fails_the_stage(dask):
    """With the error that was raised there, in the stage that returned the collection."""
    failure = dask.result(call(s.broken)).failure

    assert (failure.error, failure.message) == ("ZeroDivisionError", "division by zero")
    assert "dask_stages.py" in failure.traceback


@pytest.mark.parametrize("make", [s.bag, s.slow_bag])
def test_parts_live_as_long_as_the_handle(dask, make):
    """Then the scheduler forgets them, however long they took."""
    gc.collect()
    until(lambda: not tasks(dask))
    bag = dask.finished(call(make))
    held = call(s.kind, Parent(0))
    assert dask.value(held, bag) == "Bag"
    assert len(tasks(dask)) >= make().npartitions

    del bag
    gc.collect()

    until(lambda: not tasks(dask))


@pytest.mark.parametrize("make", [s.frame, s.series, s.array, s.bag])
def test_a_collection_is_stored_in_parts(dask, storage, make):
    """In more than ten, whose order is kept; whoever reads it gets a collection, with the same rows."""
    made = dask.finished(call(make))
    outcome = dask.result(call(s.stored, Parent(0), context=context(_storage=storage)), made)
    assert outcome.value == "partitioned"
    store = ArtifactStore(storage)
    store.publish(ArtifactRecord.model_validate(outcome.artifacts[0]))

    found = store.get("space", "table")

    parts = sorted(path for path in found.record.files if path.startswith("part-"))
    assert len(parts) > 10
    assert parts[10].startswith("part-00010.")
    assert found.size == sum(found.record.files.values())
    assert_same(found.read(), make())


@pytest.mark.parametrize("make", [s.frame, s.series, s.array, s.bag])
def test_a_collection_is_a_result_and_a_checkpoint(dask, storage, make):
    """The cluster writes it; a result is read where it is asked for, a checkpoint by a later attempt's stage."""
    data = storage.model_dump(mode="json")
    made = dask.finished(call(make))

    result = dask.result(call(store_result, data, "space", "run1", Parent(0)), made)
    saved = dask.result(call(save_checkpoint, data, "space", "run1", "stage", Parent(0)), made)
    loaded = dask.finished(call(load_checkpoint, data, "space", "run1", saved.value))

    assert_same(load_result(storage, "space", "run1", result.value), make())
    assert dask.value(call(s.kind, Parent(0)), loaded) == type(make()).__name__
    assert dask.value(call(s.computed, Parent(0)), loaded) == dask.value(call(s.computed, Parent(0)), made)


def assert_same(found, expected):
    assert type(found) is type(expected)
    got, want = (each.compute(scheduler="sync") for each in (found, expected))
    assert list(got) == list(want) if isinstance(want, list) else (got == want).all().all()

"""The client of the Dask executor: what ends its connection, and what Dask says of it."""

import gc
import logging

import pytest

import executor_functions as f
from backends import Backend
from executor_bench import call, making
from flowtilla.errors import ClusterLost
from flowtilla_executors.dask.client import hush

#: What `distributed` says when a connection ends that it still had messages for.
UNSENT = "Batched Comm Closed %r"


@pytest.fixture
def benches():
    """Executors of a test's own, closed after it."""
    with making(Backend("dask")) as make:
        yield make


def test_a_connection_that_was_cut_is_a_lost_cluster(benches):
    """Though the scheduler is there and would take a new one: it has let go of all that was held for us."""
    bench = benches(cpus=1)
    running = bench.submit(call(f.wait_for_ever))

    def cut(dask_scheduler):
        for connection in dask_scheduler.client_comms.values():
            connection.abort()

    bench.executor.session._client.run_on_scheduler(cut)

    assert "closed the connection" in str(bench.run(bench.executor.lost()))
    with pytest.raises(ClusterLost):
        bench.outcome(running)
    bench.close()
    bench.start()
    assert bench.value(call(f.give, 1)) == 1


def test_only_what_is_said_of_our_connection_is_hushed(caplog, monkeypatch):
    """As long as it is there; every other word of Dask's is heard."""
    ours, another = Connection(), Connection()
    batched = logging.getLogger("distributed.batched")
    gc.collect()  # connections of other tests
    before = list(batched.filters)
    monkeypatch.setattr(logging.getLogger("distributed"), "propagate", True)
    hush(ours)

    batched.warning(UNSENT, ours)
    batched.warning(UNSENT, another)
    batched.warning("Error in batched write")
    logging.getLogger("distributed.core").warning(UNSENT, another)

    assert [record.args for record in caplog.records] == [(another,), (), (another,)]
    assert len(batched.filters) == len(before) + 1
    del ours
    assert batched.filters == before


class Connection:
    """Stands for a connection of Dask's, of which only the identity counts."""

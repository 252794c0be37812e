"""What a task on a Dask worker does: one call."""

import pickle
import time
from typing import Any

import cloudpickle
from distributed import Reschedule, get_worker

from flowtilla_executors import remote
from flowtilla_executors.call import Call
from flowtilla_executors.dask.channel import Channel
from flowtilla_executors.dask.collections import keep
from flowtilla_executors.dask.stop import Running


def dumped(call: Call) -> bytes:
    """Returns a call as it travels.

    Raises:
        Exception: something in it cannot be pickled.
    """
    try:
        return pickle.dumps(call, protocol=5)
    except Exception:
        payload: bytes = cloudpickle.dumps(call, protocol=5)
        return payload


def run(topic: str, payload: bytes, *parents: remote.Kept) -> remote.Kept:
    """Runs a call, says how it ended, and leaves its value on this worker.

    Args:
        topic: where to say so.
        payload: the call, as `dumped` returns it.
        parents: what the calls it refers to left.
    """
    worker = get_worker()
    key = worker.get_current_task()
    channel = Channel(worker, topic, key)
    call: Call = pickle.loads(payload)
    with Running(key) as running:
        if call.timeout is not None:
            channel.begun(time.time())
        kept, outcome = remote.run(call, parents, keep, channel.lines, lambda: running.stopped)
    if running.stopped:
        # Nobody waits for it; or the scheduler gave it here again after all, and it begins anew.
        raise Reschedule
    channel.ended(outcome)
    return kept



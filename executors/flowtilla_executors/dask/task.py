"""What a task on a Dask worker does: one call."""

import pickle
import time
from dataclasses import replace

from distributed import Reschedule, get_worker

from flowtilla_executors import remote
from flowtilla_executors.call import Call
from flowtilla_executors.dask.channel import Channel
from flowtilla_executors.dask.collections import Persisted, keep
from flowtilla_executors.dask.stop import Running, Stopped, leave
from flowtilla_executors.outcome import Outcome


def run(topic: str, payload: bytes, *parents: remote.Kept) -> remote.Kept:
    """Runs a call, says how it ended, and leaves its value on this worker.

    Args:
        topic: where to say so.
        payload: the call, as `remote.dumped` returns it.
        parents: what the calls it refers to left.
    """
    worker = get_worker()
    key = str(worker.get_current_task())
    channel = Channel(worker, topic, key)
    try:
        kept, outcome = _run(pickle.loads(payload), parents, key, channel)
    except Stopped:
        leave(key)
        # Nobody waits for its value; or the scheduler gave it here again after all, and then it begins anew.
        channel.stopped()
        raise Reschedule from None
    if isinstance(kept.value, Persisted):
        channel.left(kept.value.keys)
        outcome = replace(outcome, size=kept.value.nbytes)
    channel.ended(outcome)
    return kept


def _run(call: Call, parents: tuple[remote.Kept, ...], key: str, channel: Channel) -> tuple[remote.Kept, Outcome]:
    with Running(key) as running:
        if call.timeout is not None:
            channel.begun(time.time())
        result = remote.run(call, parents, keep, channel.lines, running.cancellation)
    if running.cancellation.requested:
        channel.lines(result[1].logs)  # its last words
        raise Stopped
    return result

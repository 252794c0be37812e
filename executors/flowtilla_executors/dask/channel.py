"""The way of news from stages to the flowtilla process: through the scheduler, in order, and kept by nobody.

A worker sends an event on the same stream that says that a task has finished, and before it; the scheduler passes
both on in order. So whoever sees a task finished has its outcome.
"""

import pickle
from collections.abc import Sequence
from typing import Any

from distributed import Worker

from flowtilla.logs import LogLine
from flowtilla_executors.outcome import Outcome

#: How the topics of such events begin; the scheduler forgets what goes there.
TOPICS = "flowtilla-"

#: What calls of this process say of their end, with the topic, by key: until their tasks are finished.
_ends: dict[str, tuple[str, dict[str, Any]]] = {}


class Channel:
    """What one call says while it runs; may be used from any thread.

    Args:
        worker: where the call runs.
        topic: of the executor that made it.
        key: of the call.
    """

    def __init__(self, worker: Worker, topic: str, key: str) -> None:
        self._worker = worker
        self._topic = topic
        self._key = key

    def begun(self, started: float) -> None:
        """Says that the call has begun."""
        self._send("begun", started)

    def lines(self, lines: Sequence[LogLine]) -> None:
        """Sends log lines on."""
        self._send("lines", tuple(lines))

    def left(self, keys: Sequence[Any]) -> None:
        """Says what the call left on the cluster beside its value."""
        self._send("left", tuple(keys))

    def stopped(self) -> None:
        """Says that nothing of the call runs any more, since it was to stop."""
        self._send("stopped", None)

    def ended(self, outcome: Outcome) -> None:
        """Says how the call ended, as soon as its task is finished."""
        _ends[self._key] = (self._topic, self._message("ended", outcome))

    def _send(self, what: str, content: Any) -> None:
        self._worker.log_event(self._topic, self._message(what, content))

    def _message(self, what: str, content: Any) -> dict[str, Any]:
        return {"key": self._key, what: pickle.dumps(content, protocol=5)}


def send_end(worker: Worker, key: str) -> None:
    """Sends what a call said of its end, in its worker's event loop, right before that sends that the task is finished.

    So both go together: what comes soon after something else was sent Dask holds back for 2 ms.

    Args:
        worker: where the call ran.
        key: of the call.
    """
    if (end := _ends.pop(key, None)) is not None:
        worker.log_event(*end)


def received(event: tuple[float, dict[str, Any]]) -> tuple[str, str, Any]:
    """Returns the key of a call, what it says, and the content."""
    message = event[1]
    what = next(word for word in ("ended", "lines", "begun", "left", "stopped") if word in message)
    return message["key"], what, pickle.loads(message[what])

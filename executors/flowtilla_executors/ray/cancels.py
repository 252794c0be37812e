"""Has Ray cancel calls, in its driver process."""

import contextlib
import time
from typing import Any

import ray
from ray.exceptions import RayError

from flowtilla_executors.ray.completions import Entry

#: Seconds until Ray is told again to cancel a call that has not ended.
_AGAIN = 1.0

#: Seconds that Ray Client's server may take for what it was told before.
_IN_TURN = 2.0


class Cancels:
    """Cancels calls as Ray 2.60 survives it.

    Who calls `ray.cancel` while Ray's own thread takes a call in, finds that what it takes is there, or that it has
    ended, now and then ends the process by a failed check (`submitted_task_ref_count > 0`, `submissible_tasks_`; Ray's
    issue 55131, which was mended for actors). So Ray cancels on that thread itself, which does one thing after
    another. And it forgets to cancel a call that is on its way to a process just then: it is told until that has
    ended.

    Args:
        answer: a reference to what is there, or will be soon; whoever asks for it is called back on Ray's thread.
        here: whether Ray's thread is one of this process, and not of a Ray Client server.
    """

    def __init__(self, answer: Any, here: bool) -> None:
        self._answer = answer
        self._here = here
        self._dying: set[Entry] = set()

    def cancel(self, entry: Entry) -> None:
        """Has a call killed that has not ended."""
        if not entry.ended.done():
            self._dying.add(entry)
            self._tell_ray(entry)

    def serve(self) -> None:
        """Sees to it that what was cancelled ends, for ever."""
        while True:
            time.sleep(_AGAIN)
            for entry in self._dying.copy():
                if entry.ended.done():
                    self._dying.discard(entry)
                else:
                    self._tell_ray(entry)

    def _tell_ray(self, entry: Entry) -> None:
        if self._here:
            # Not by a future of its, which might call from this thread.
            self._answer._on_completed(lambda _: _kill(entry))
            return
        # Ray Client would wait for itself. Its server has taken in what came before once it has answered.
        with contextlib.suppress(TimeoutError, RayError):
            self._answer.future().result(timeout=_IN_TURN)
        _kill(entry)


def _kill(entry: Entry) -> None:
    if not entry.ended.done():
        ray.cancel(entry.reply, force=True)

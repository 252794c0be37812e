"""Asks what runs in a stage to stop, and does the clean-up that it registered for that."""

import contextvars
import inspect
import logging
import threading
from collections.abc import Callable

#: Seconds that a stage which looks at `context().cancelled`, or registered clean-up, gets before force is used.
GRACE = 1.5

_log = logging.getLogger("flowtilla.stage")

_Callback = Callable[[], object]


class Cancellation:
    """Whether one call is to stop, and what is to be done then; may be used from any thread.

    Args:
        heeded: called, with this, when the stage first asks whether it is to stop, or registers clean-up.
    """

    def __init__(self, heeded: "Callable[[Cancellation], None] | None" = None) -> None:
        self.requested = False
        #: Whether the stage will notice: one that does not need not be waited for.
        self.heeds = False
        self._heeded = heeded
        self._lock = threading.Lock()
        # Each with the context of who registered it: what it prints is that item's.
        self._callbacks: list[tuple[contextvars.Context, _Callback]] = []
        self._cleaning: threading.Thread | None = None

    def request(self) -> None:
        """Asks the call to stop, and has the clean-up begin, on a thread of its own."""
        with self._lock:
            if not self.requested:
                self.requested = True
                if self._callbacks:
                    self._cleaning = threading.Thread(
                        target=_clean_up, args=(self._callbacks,), name="flowtilla-on-cancel", daemon=True
                    )
                    self._cleaning.start()

    def look(self) -> bool:
        """Returns whether the call is to stop, to its stage."""
        self._heed()
        return self.requested

    def on_request(self, callback: _Callback) -> None:
        """Registers clean-up; it runs here and now when the call is to stop already.

        Raises:
            TypeError: it is not a plain function.
        """
        if not callable(callback) or inspect.iscoroutinefunction(callback):
            raise TypeError(f"on_cancel takes a plain function that can be called without arguments, not {callback!r}")
        self._heed()
        with self._lock:
            late = self.requested
            if not late:
                self._callbacks.append((contextvars.copy_context(), callback))
        if late:
            _call(callback)

    def forget(self) -> None:
        """Forgets the clean-up of a function that has ended; waits for what of it runs."""
        if not self.heeds:
            return  # on the way of every item of every map
        with self._lock:
            self._callbacks, cleaning = [], self._cleaning
        if cleaning is not None:
            cleaning.join()

    def __reduce__(self) -> tuple[type["Cancellation"], tuple[()]]:
        # A stage may send its context elsewhere; nobody asks it to stop there.
        return Cancellation, ()

    def _heed(self) -> None:
        if not self.heeds:
            self.heeds = True
            if self._heeded is not None:
                self._heeded(self)


def _clean_up(callbacks: list[tuple[contextvars.Context, _Callback]]) -> None:
    # The last first, as everywhere where things are taken down again.
    for context, callback in reversed(callbacks):
        context.run(_call, callback)


def _call(callback: _Callback) -> None:
    try:
        callback()
    except (Exception, SystemExit):
        _log.exception("an on_cancel callback failed")

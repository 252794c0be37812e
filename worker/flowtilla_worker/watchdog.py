"""Ends a worker whose event loop hangs, so that its runs do not hang with it."""

import asyncio
import faulthandler
import logging
import os
import tempfile
import threading
import time
from contextlib import suppress

_log = logging.getLogger("flowtilla.worker")

#: A loop may be silent for so many leases, and for so many seconds where leases are short.
PATIENCE, _LEAST = 6, 10.0

#: The exit code of a worker whose event loop hung.
HUNG = 70

#: Seconds that the last words may take: the log may be what the loop hangs in.
_LAST_WORDS = 5.0


class Watchdog:
    """Sees whether an event loop still comes round.

    Only time in which somebody looked counts: a process that was stopped, on a machine that was suspended or with a
    thread that held the interpreter, finds the loop as silent as itself, and waits for it.

    Args:
        loop: the loop.
        lease: seconds that a lease of the worker lasts.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, lease: float) -> None:
        self._loop = loop
        self._lease = lease
        self._patience = max(PATIENCE * lease, _LEAST)
        self._looked = time.monotonic()
        self._silent = 0.0
        self._answered = True

    def look(self) -> None:
        """Asks the loop to answer, and ends the process when it has not for too long; called often, from a thread."""
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        if self._loop.is_closed():
            return
        if self._answered:
            self._silent, self._answered = 0.0, False
            self._loop.call_soon_threadsafe(self._answer)
        else:
            self._silent += min(passed, self._lease)
            if self._silent > self._patience:
                self._end()

    def _answer(self) -> None:
        self._answered = True

    def _end(self) -> None:
        words = threading.Thread(target=_last_words, args=(self._silent,), daemon=True)
        words.start()
        words.join(_LAST_WORDS)
        os._exit(HUNG)


def _last_words(silent: float) -> None:
    stacks = ""
    with suppress(OSError), tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        stacks = file.read().decode(errors="replace")
    _log.critical(
        "the event loop has hung for %.0f s, so this worker ends, and others go on with its runs when their leases "
        "have run out. Report this, with what its threads were doing:\n%s",
        silent,
        stacks,
    )

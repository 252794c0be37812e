"""Dask's client as an executor needs it: its connection ends once, and it is not Dask who says so."""

import contextlib
import logging
import weakref
from typing import Any

from distributed import Client
from distributed.comm import Comm, CommClosedError

_log = logging.getLogger("distributed.batched")


class OneLifeClient(Client):
    """A client that does not connect again: what the cluster held for it is gone, and its executor starts anew.

    Dask's own would try for seconds, and log a traceback when it is closed meanwhile.
    """

    async def _reconnect(self) -> None:
        for state in self.futures.values():
            state.cancel()  # whoever waits for it
        self.futures.clear()

    def _send_to_scheduler_safe(self, message: dict[str, Any]) -> None:
        # Until the end of the connection is seen.
        with contextlib.suppress(CommClosedError):
            super()._send_to_scheduler_safe(message)


def hush(comm: Comm) -> None:
    """Keeps Dask from logging a traceback for what this connection had still to send when it ended."""
    reference = weakref.ref(comm)

    def is_wanted(record: logging.LogRecord) -> bool:
        return not (isinstance(record.args, tuple) and reference() in record.args)

    _log.addFilter(is_wanted)
    weakref.finalize(comm, _log.removeFilter, is_wanted)

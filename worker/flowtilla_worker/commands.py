"""The commands that RQ's tools, and a client's `cancel`, publish to a worker."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from flowtilla.protocol import cancel
from flowtilla.settings import Settings
from flowtilla.steps import adrive
from flowtilla_worker.engine.halt import Halt
from flowtilla_worker.slots import Slots
from flowtilla_worker.trouble import tried

_log = logging.getLogger("flowtilla.worker")

#: How many bytes a command may have.
_LONGEST = 4096


class Commands:
    """Obeys what is published to a worker.

    Args:
        slots: the runs that it has in hand.
        stop: asks it to stop.
        redis: an asyncio connection.
        settings: how long cancelled runs are kept.
    """

    def __init__(self, slots: Slots, stop: Callable[[], None], redis: Any, settings: Settings) -> None:
        self._slots = slots
        self._stop = stop
        self._redis = redis
        self._settings = settings
        self._noting: set[asyncio.Task[Any]] = set()

    def obey(self, message: dict[str, Any]) -> None:
        """Obeys a message of the worker's channel; whoever can publish can send anything."""
        data: bytes = message["data"]
        try:
            command = json.loads(data[:_LONGEST])
            name, run_id, noted = command["command"], str(command.get("job_id")), command.get("noted") is True
        except Exception:
            _log.warning("a command that cannot be read was ignored: %r", data[:100])
            return
        if name in ("stop-job", "stop-execution"):
            self._slots.halt([run_id], Halt.CANCELLED)
            if not noted:
                self._note(run_id)
        elif name == "shutdown":
            self._stop()

    def _note(self, run_id: str) -> None:
        """Cancels a run as a client would: RQ's command is only a message, and the run may just be changing hands."""
        noting = tried(adrive(cancel(run_id, self._settings), self._redis), f"cancelling run {run_id:.100}")
        task = asyncio.create_task(noting)
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

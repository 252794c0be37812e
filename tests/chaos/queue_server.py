"""The queue: a real server whose append-only file is also the whole history of all that was written."""

import os
import signal
import time
from pathlib import Path
from typing import Self

from redis import Redis

from flowtilla_worker.dev.embedded import EmbeddedValkey
from flowtilla_worker.dev.ports import free_port

from .faults import Fault, Incidents

_SETTINGS = {
    # With `everysec` a server that is killed may lose what it acknowledged in the last second or two.
    "appendfsync": "always",
    # The file is read as history afterwards, so it is never rewritten, and has times.
    "auto-aof-rewrite-percentage": "0",
    "aof-timestamp-enabled": "yes",
}


class QueueServer:
    """A server that is restarted, killed and frozen, on one port for ever."""

    def __init__(self, folder: Path, incidents: Incidents) -> None:
        self.port = free_port()
        self._server = EmbeddedValkey(folder, persistent=True, port=self.port)
        self._incidents = incidents
        self.history = folder / "valkey" / "appendonlydir"

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        """Where it is."""
        return self._server.url

    def do(self, fault: Fault) -> None:
        """Lets something go wrong with it, until it is right again."""
        began = time.time()
        if fault.kind == "freeze":
            # To everybody else this is a network that loses all packets.
            os.kill(self._pid, signal.SIGSTOP)
            time.sleep(fault.lasts)
            os.kill(self._pid, signal.SIGCONT)
        else:
            if fault.kind == "kill":
                os.kill(self._pid, signal.SIGKILL)
            self._server.stop()
            time.sleep(fault.lasts)
            self._start()
        self._incidents.note(began, "redis", fault.kind)

    def _start(self) -> None:
        self._server.start()
        with Redis.from_url(self.url) as redis:
            for name, value in _SETTINGS.items():
                redis.config_set(name, value)
            self._pid = int(redis.info("server")["process_id"])

"""rq-dashboard on a free loopback port."""

import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from flowtilla_worker.dev.guarded import Guarded
from flowtilla_worker.dev.ports import answers, free_port

#: How to get it.
INSTALL = 'pip install "flowtilla[dashboard]"'

_START_TIMEOUT = 20.0


class Dashboard:
    """An rq-dashboard, which lives as long as this object is entered.

    Args:
        redis_url: what it shows.
        log: the file its output goes to.
    """

    def __init__(self, redis_url: str, log: Path) -> None:
        self._redis_url = redis_url
        self._log = log
        self.url = ""

    @staticmethod
    def installed() -> bool:
        """Returns whether it is here."""
        return find_spec("rq_dashboard") is not None and find_spec("six") is not None

    def __enter__(self) -> Self:
        port = free_port()
        command = [sys.executable, "-P", "-m", "rq_dashboard", "--json", "--bind", "127.0.0.1", "--port", str(port)]
        # Not an argument: everybody on the machine sees those, and the URL may have a password.
        env = os.environ | {"RQ_DASHBOARD_REDIS_URL": self._redis_url}
        with self._log.open("ab") as log:
            self._server = Guarded(command, log, env=env)
        deadline = time.monotonic() + _START_TIMEOUT
        while not answers(port) and self._server.running and time.monotonic() < deadline:
            time.sleep(0.05)
        self.url = f"http://127.0.0.1:{port}" if self._server.running else ""
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop()

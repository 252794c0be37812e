"""Renews a worker's leases, on a thread and a connection of its own: a busy event loop cannot delay it."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from rq.worker import WorkerStatus

from flowtilla.settings import WorkerSettings
from flowtilla_worker.leases import Held, renew
from flowtilla_worker.trouble import complain


class Heartbeat:
    """Renews leases until it is stopped.

    Args:
        redis: a blocking connection that only the heartbeat uses.
        worker: the worker's name.
        settings: how often, and how long a lease is.
        held: returns run id and token of each run in hand; called from the heartbeat's thread.
        shown: returns further fields of the worker's record; called from the heartbeat's thread.
        heard: takes those of the runs in hand that are lost, and those to cancel; called from the heartbeat's thread.
        forgotten: called with the connection when RQ's record of the worker is gone, to write it again.
        watch: called before every beat: a worker whose event loop hangs must not beat.
        beaten: called after every beat, whether Redis took it or not.
    """

    def __init__(
        self,
        redis: Any,
        worker: str,
        settings: WorkerSettings,
        held: Callable[[], Held],
        shown: Callable[[], Mapping[str, str]],
        heard: Callable[[Held, Held], None],
        forgotten: Callable[[Any], None],
        watch: Callable[[], None],
        beaten: Callable[[], None] = lambda: None,
    ) -> None:
        self._redis = redis
        self._worker = worker
        self._settings = settings
        self._held = held
        self._shown = shown
        self._heard = heard
        self._forgotten = forgotten
        self._watch = watch
        self._beaten = beaten
        #: What the last beat told.
        self.busy = False
        #: Whether the worker takes no runs for now.
        self.suspended = False
        self._stopped = False
        self._now = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flowtilla-heartbeat", daemon=True)

    def start(self) -> None:
        """Begins to beat."""
        self._thread.start()

    def beat_now(self) -> None:
        """Beats without waiting for the interval: the worker's state changed."""
        self._now.set()

    def stop(self) -> None:
        """Stops beating and waits for a beat that is under way."""
        self._stopped = True
        self._now.set()
        self._thread.join(timeout=self._settings.lease)

    def _run(self) -> None:
        while not self._stopped:
            begun = time.monotonic()
            try:
                self._watch()
                try:
                    self._beat()
                finally:
                    self._beaten()
            except Exception as error:
                complain("the heartbeat", error)
                # Soon again: each second counts against the lease.
                self._now.wait(min(1.0, self._settings.heartbeat))
            else:
                self._now.wait(max(0.0, self._settings.heartbeat - (time.monotonic() - begun)))
            self._now.clear()

    def _beat(self) -> None:
        held = self._held()
        self.busy = bool(held)
        free = WorkerStatus.SUSPENDED if self.suspended else WorkerStatus.IDLE
        state = WorkerStatus.BUSY if held else free
        fields = {"state": state.value, "runs": str(len(held)), **self._shown()}
        known, lost, cancelled = renew(self._redis, self._worker, self._settings.lease, held, fields)
        if lost or cancelled:
            self._heard(lost, cancelled)
        if not known and not self._stopped:
            self._forgotten(self._redis)

"""Those who submit runs through it all, cancel some, and mend and retry others."""

import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from redis import Redis
from redis.exceptions import RedisError

import flowtilla
from flowtilla.errors import QueueUnavailable, RunError
from flowtilla.settings import Settings

from .faults import Incidents
from .workload import LINES, Planned, arguments, draw, shapes

T = TypeVar("T")

#: Producers pause while so many runs wait: a run that comes back is to be claimed again soon.
MOST_QUEUED = 50

#: Seconds that a client tries again while Redis is away.
PATIENCE = 120.0


class Producers:
    """Several producers, and an operator.

    Args:
        seed: what they submit follows from it.
        count: how many.
        rate: runs a second, of all together.
        settings: of the fleet.
        folder: where the runs leave their marks.
        incidents: takes what must not happen.
    """

    def __init__(
        self, seed: int, count: int, rate: float, settings: Settings, folder: Path, incidents: Incidents
    ) -> None:
        self.submitted: dict[str, Planned] = {}
        self.cancelled: set[str] = set()
        self.retried: set[str] = set()
        self._settings, self._folder, self._incidents = settings, folder, incidents
        self._seed, self._pause = seed, count / rate
        self._over = threading.Event()
        self._due: list[tuple[float, str, Callable[[flowtilla.Client], bool]]] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._produce, args=(number,), daemon=True) for number in range(count)]
        self._operator = threading.Thread(target=self._operate, daemon=True)
        for thread in (*self._threads, self._operator):
            thread.start()

    def stop(self) -> None:
        """Ends the submitting, and waits until the operator has done what is left for him."""
        self._over.set()
        for thread in (*self._threads, self._operator):
            thread.join()

    def _produce(self, number: int) -> None:
        rng = random.Random(f"{self._seed}/producer/{number}")
        client = flowtilla.Client(settings=self._settings)
        redis = Redis.from_url(self._settings.redis.url.get_secret_value())
        names = itertools.count()
        try:
            while not self._over.wait(rng.expovariate(1 / self._pause)):
                # Mostly one at a time; some in one batch.
                size = rng.choice((1, 1, 1, 1, 5))
                runs = [draw(f"{self._seed}-{number}-{next(names)}", rng, str(self._folder)) for _ in range(size)]
                self._wait_for_room(redis)
                submitted = patiently(lambda runs=runs: client.submit_many([arguments(run) for run in runs]))
                with self._lock:
                    for run, planned in zip(submitted, runs, strict=True):
                        self.submitted[run.id] = planned
                        self._plan_for(run.id, planned)
        except Exception as error:
            self._incidents.complain(f"producer {number} broke: {error!r}")
            raise
        finally:
            client.close()
            redis.close()

    def _wait_for_room(self, redis: "Redis") -> None:
        while not self._over.is_set():
            try:
                if sum(redis.llen(line) for line in LINES) < MOST_QUEUED:
                    return
            except RedisError:
                pass
            time.sleep(0.2)

    def _plan_for(self, run_id: str, planned: Planned) -> None:
        if planned.cancel_after is not None:
            self._later(planned.cancel_after, run_id, self._cancel(run_id))
        if shapes()[planned.shape].mended:
            self._later(1, run_id, self._mend(run_id))

    def _later(self, seconds: float, run_id: str, do: Callable[[flowtilla.Client], bool]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, run_id, do))

    def _cancel(self, run_id: str) -> Callable[[flowtilla.Client], bool]:
        def cancel(client: flowtilla.Client) -> bool:
            self.cancelled.add(run_id)
            client.get(run_id).cancel()
            return True

        return cancel

    def _mend(self, run_id: str) -> Callable[[flowtilla.Client], bool]:
        def mend(client: flowtilla.Client) -> bool:
            run = client.get(run_id)
            if not run.state.ended:
                return False
            (self._folder / run_id).with_suffix(".mended").touch()
            self.retried.add(run_id)
            try:
                run.retry()
            except RunError:
                # The answer to an earlier try was lost: it is queued again, or has ended again.
                if run.state == "failed":
                    raise
            return True

        return mend

    def _operate(self) -> None:
        client = flowtilla.Client(settings=self._settings)
        try:
            # After the last submit what is left is done still: each within the time that a run may take.
            while not self._over.is_set() or any(thread.is_alive() for thread in self._threads) or self._due:
                with self._lock:
                    due = heapq.heappop(self._due) if self._due and self._due[0][0] <= time.monotonic() else None
                if due is None:
                    time.sleep(0.05)
                elif not patiently(lambda do=due[2]: do(client)):
                    with self._lock:
                        self._later(1, *due[1:])
        except Exception as error:
            self._incidents.complain(f"the operator broke: {error!r}")
            raise
        finally:
            client.close()


def patiently(ask: Callable[[], T]) -> T:
    """Asks until Redis answers."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except QueueUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)

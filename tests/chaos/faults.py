"""What goes wrong, and when: a plan that follows from the seed alone, and a journal of what was done."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: What may happen to each kind of target: how often (a weight), and for how long, in seconds.
WORKER = {"kill": (4, 0, 3), "kill with children": (3, 0, 3), "freeze": (3, 1, 30), "cut off": (3, 1, 30)}
WORKER |= {"deploy": (3, 0, 0)}
REDIS = {"restart": (1, 0, 5), "kill": (1, 0, 5), "freeze": (1, 1, 30)}
RAY = {"kill": (2, 0, 5), "kill raylet": (1, 0, 3), "kill control store": (1, 0, 3)}
DASK = {"kill scheduler": (1, 0, 5), "kill worker": (2, 0, 5)}

#: Seconds between two faults of one target, on average.
WORKER_GAP, REDIS_GAP, CLUSTER_GAP = 25.0, 40.0, 40.0


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that will go wrong.

    Args:
        at: seconds after the start.
        target: with what.
        kind: how.
        lasts: seconds.
    """

    at: float
    target: str
    kind: str
    lasts: float

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {self.target:9} {self.kind} ({self.lasts:.1f} s)"


def plan(seed: int, target: str, kinds: dict[str, tuple[int, float, float]], gap: float, seconds: float) -> list[Fault]:
    """Returns what will go wrong with one target, the same for the same seed."""
    rng = random.Random(f"{seed}/{target}")
    faults, at = [], rng.expovariate(1 / gap) + 2
    while at < seconds:
        kind = rng.choices(list(kinds), [weight for weight, _, _ in kinds.values()])[0]
        lasts = rng.uniform(*kinds[kind][1:])
        faults.append(Fault(at, target, kind, lasts))
        at += lasts + 2 + rng.expovariate(1 / gap)
    return faults


#: A worker that was told to stop ended and could not hand back a run.
GIVEN_UP = "given up"


@dataclass(frozen=True)
class Incident:
    """One thing that went wrong, or was done, as it happened.

    Args:
        began, ended: seconds since the epoch.
        target, kind: as planned.
        name: which worker it was.
    """

    began: float
    ended: float
    target: str
    kind: str
    name: str = ""


@dataclass
class Incidents:
    """All that happened, by whom it happened to; written by many threads."""

    all: list[Incident] = field(default_factory=list)
    #: What must not happen, as sentences.
    complaints: list[str] = field(default_factory=list)
    begun: float = 0.0

    def note(self, began: float, target: str, kind: str, name: str = "", said: str = "") -> None:
        """Takes one that ends now."""
        self.all.append(Incident(began, time.time(), target, kind, name))
        took = f"{began - self.begun:6.1f} to {time.time() - self.begun:6.1f} s"
        print(f"  {took}  {target:9} {kind} {name} {said}".rstrip(), flush=True)

    def complain(self, sentence: str) -> None:
        """Takes something that must not happen."""
        self.complaints.append(sentence)
        print(f"  {time.time() - self.begun:6.1f} s  VIOLATION: {sentence}", flush=True)


class Timeline:
    """Does what is planned for one target, in a thread of its own.

    Args:
        faults: the plan.
        do: does one of them, from its begin to its end.
        tend: called about each half second between them.
        incidents: told when it breaks.
    """

    def __init__(
        self, faults: list[Fault], do: Callable[[Fault], None], tend: Callable[[], None], incidents: Incidents
    ) -> None:
        self._faults, self._do, self._tend, self._incidents = faults, do, tend, incidents
        self._begun = time.monotonic()
        self._over, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Waits until all that was planned has been done; what dies of itself after that is still tended."""
        self._done.wait()

    def stop(self) -> None:
        """Ends it."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        waiting = list(self._faults)
        try:
            while not self._over.wait(0.5):
                self._tend()
                if not waiting:
                    self._done.set()
                elif time.monotonic() - self._begun >= waiting[0].at:
                    self._do(waiting.pop(0))
        except Exception as error:
            self._incidents.complain(f"the harness itself broke: {error!r}")
            raise
        finally:
            self._done.set()

"""How a worker ends that was told to stop: its runs have most of the grace, and all else has the rest of it."""

import asyncio
import faulthandler
import math
import time
from collections.abc import Callable

#: The reserve, which is what runs do not have of the grace: a share of it, and within these seconds.
_SHARE, _LEAST, _MOST = 0.25, 3.0, 5.0

#: How much of the reserve may be spent when a step must be over: a claim under way, runs that end when they are told
#: to, runs that do not, the executor, all else.
CLAIMED, HANDED_BACK, GIVEN_UP, CLOSED, GONE = 0.2, 0.3, 0.38, 0.45, 0.5

#: And when a process that has not ended by then is ended by force: by itself, or else by its supervisor. What is left
#: then is for the supervisor to see to the runs, and to end, on a machine that is busy.
_FORCED, _KILLED = 0.65, 0.7

#: Seconds that a step may take when nobody waits for the end.
_UNHURRIED = 10.0


class Stopping:
    """Until when each step on the way to a worker's end may take.

    Args:
        grace: seconds from when the worker is told to stop until its process has ended.
        last_resort: takes the seconds after which the process is to be ended, whatever it does.
    """

    def __init__(self, grace: float, last_resort: Callable[[float], None]) -> None:
        self._reserve = _reserve(grace)
        self._grace = max(grace, self._reserve)
        self._last_resort = last_resort
        self._ends = math.inf
        #: How often the worker was told to stop.
        self.told = 0
        #: Set when runs must go back to their queues.
        self.hurry = asyncio.Event()

    @property
    def for_runs(self) -> float:
        """Seconds that runs have to end."""
        return self._grace - self._reserve

    def tell(self) -> None:
        """Takes note that the worker is told to stop; the second time, that its runs must go back at once."""
        self.told += 1
        now = time.monotonic()
        self._ends = min(self._ends, now + (self._grace if self.told == 1 else self._reserve))
        self._last_resort(max(0.0, self._ends - now - (1 - _FORCED) * self._reserve))

    def left(self, share: float) -> float:
        """Returns the seconds until so much of the reserve is spent."""
        if not self.told:
            return _UNHURRIED
        return max(0.0, self._ends - (1 - share) * self._reserve - time.monotonic())

    def __str__(self) -> str:
        return f"on SIGTERM runs have {self.for_runs:g} s to end, and the worker ends within {self._grace:g} s"


def killed_after(grace: float) -> float:
    """Returns the seconds from SIGTERM after which a supervisor kills a worker that does not even end itself."""
    return max(grace, _LEAST) - (1 - _KILLED) * _reserve(grace)


def end_process(seconds: float) -> None:
    """Ends this process with exit code 1 after so many seconds; asked again, after as many from then.

    Nothing that Python code does can hold that up, not even code that keeps the interpreter to itself. Standard error
    then has what each thread was doing.
    """
    # Zero is refused.
    faulthandler.dump_traceback_later(max(seconds, 0.001), exit=True)


def _reserve(grace: float) -> float:
    return min(max(_SHARE * grace, _LEAST), _MOST)

"""How a task of the cluster ended, as the outcome of its call."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

from distributed.scheduler import KilledWorker

from flowtilla.errors import ClusterLost
from flowtilla_executors.dask.handle import Handle
from flowtilla_executors.failures import ending, failed, lost, value_lost
from flowtilla_executors.outcome import LIVES, Failure, Outcome
from flowtilla_executors.recorder import host

#: Seconds until a nanny has told of a death, on a busy machine too, and until a connection that ended is known as a
#: lost cluster.
_OBITUARY, _VERDICT = 8.0, 12.0

#: Of a call whose task ended, while its outcome never came.
_UNHEARD = "it ended, but how was not heard: the scheduler may be overloaded"

#: Deaths that are remembered.
_DEATHS = 1000


class Endings:
    """Knows which worker processes died, and who is to blame.

    Args:
        cluster_lost: waits until the cluster is gone.
    """

    def __init__(self, cluster_lost: Callable[[], Coroutine[Any, Any, ClusterLost]]) -> None:
        self._cluster_lost = cluster_lost
        #: How processes died, by address.
        self._deaths: dict[str, str] = {}

    def died(self, address: str, code: int) -> str:
        """Takes note of a death, and returns it in words."""
        how = self._deaths[address] = ending(code)
        if len(self._deaths) > _DEATHS:
            del self._deaths[next(iter(self._deaths))]
        return how

    async def of(self, handle: Handle) -> Outcome | None:
        """Waits until a call's task has ended, and returns how.

        Returns:
            None if the call only stood beside others whose processes died, and must be made again.
        """
        assert handle.future is not None
        error = await handle.future.exception()
        while handle.future.status == "lost":
            # Its value was there, and went with its worker before anybody looked: it is being made again.
            error = await handle.future.exception()
        if handle.future.status == "finished":
            return handle.said or value_lost(handle.call, _UNHEARD)
        if handle.future.status != "error":
            return await self._taken_back(handle)
        if handle.call.ahead and any(one.future is None or one.future.status == "error" for one in handle.parents):
            return early()
        if not isinstance(error, KilledWorker):
            return failed(Failure.of(error), handle.started)
        return await self._killed(handle, error)

    async def within_verdict(self) -> ClusterLost | None:
        """Returns how the cluster was lost, if that is about to be known."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_VERDICT):
                return await self._cluster_lost()
        return None

    async def _killed(self, handle: Handle, error: KilledWorker) -> Outcome | None:
        """Returns the outcome of a call that was held by processes that died."""
        address = error.last_worker.address
        # Without a nanny there is nobody to tell.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OBITUARY):
                while address not in self._deaths and error.last_worker.nanny is not None:
                    await asyncio.sleep(0.01)
        if address not in self._deaths:
            deaths = error.allowed_failures + 1
            return lost(handle.call, f"{deaths} worker processes did, the last at {address}", handle.started)
        if len(handle.deaths) < LIVES:
            return None
        how = f"{handle.deaths[-1]}; it was the {len(handle.deaths)}. process that died of it"
        return lost(handle.call, how, handle.started)

    async def _taken_back(self, handle: Handle) -> Outcome:
        """Returns the outcome of a call that the scheduler dropped, unless that is because the cluster is gone."""
        await self.within_verdict()
        how = "the cluster dropped it: a value that it takes died with its worker, or somebody restarted the cluster"
        return value_lost(handle.call, how)


def early() -> Outcome:
    """Returns the outcome of a call that did not run, since a parent has no value."""
    now = time.time()
    return Outcome(now, now, host(), os.getpid(), early=True)

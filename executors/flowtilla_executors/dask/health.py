"""Watches a cluster: whether its scheduler answers, and what workers there are."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distributed import Client

from flowtilla.errors import ClusterLost
from flowtilla_executors.dask.needs import offered
from flowtilla_executors.resources import Offers

#: Seconds between two looks at the connection, and between two questions to the scheduler.
_GLANCE, _LOOK = 0.2, 1.0

#: Seconds that the scheduler may take to answer, and that a cluster may be without any worker.
_ANSWER, _EMPTY = 5.0, 7.0


class Health:
    """What is known about a cluster now.

    Args:
        client: connected to it.
        name: how messages call it, such as `the Dask cluster at tcp://10.0.0.5:8786`.
        death: returns how its scheduler ended where that can be seen, else None.
        grows: whether it may do without workers.
    """

    def __init__(self, client: Client, name: str, death: Callable[[], str | None], grows: bool) -> None:
        self.workers: list[Mapping[str, Any]] = []
        self.offers = Offers()
        #: The resources that the workers have; if there are none, that the last ones had.
        self.counted: set[str] = set()
        self._client = client
        self.name = name
        self._death = death
        self._grows = grows
        self._empty_since: float | None = None

    async def look(self) -> None:
        """Asks the scheduler what workers there are.

        Raises:
            OSError: it does not answer.
        """
        async with asyncio.timeout(_ANSWER):
            identity = await self._client.scheduler.identity(n_workers=-1)
        self.workers = list(identity["workers"].values())
        self.know(self.workers)

    def know(self, workers: Sequence[Mapping[str, Any]]) -> None:
        """Takes note of workers, which are up or will be, as the scheduler tells of them."""
        if workers:
            self.counted = {name for worker in workers for name in worker["resources"]}
        self.offers.update([offered(worker, self.counted) for worker in workers])

    async def watch(self) -> ClusterLost:
        """Returns how the cluster was lost, once it is; the client's connection is cut then."""
        how = await self._loss()
        # What is still to be sent nobody wants now, and a client that is closed would wait for it.
        self._client.scheduler_comm.abort()
        return ClusterLost(how)

    async def _loss(self) -> str:
        next_look = time.monotonic()
        while True:
            if (how := self._ended()) is not None:
                return how
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + _LOOK
                try:
                    await self.look()
                except Exception:
                    await asyncio.sleep(_GLANCE)  # the connection may be about to say why
                    return self._ended() or f"{self.name} does not answer: it hangs, or the network is cut"
                if self._without_workers():
                    return f"{self.name} has had no worker for {_EMPTY:g}s: all of them died or left"
            await asyncio.sleep(_GLANCE)

    def _ended(self) -> str | None:
        if (how := self._death()) is not None:
            return f"the scheduler of {self.name} died: {how}"
        if self._client.status != "running":
            return f"{self.name} closed the connection: its scheduler died or restarted, or the network was cut"
        return None

    def _without_workers(self) -> bool:
        now = time.monotonic()
        if self.workers or self._grows:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = now
        return self._empty_since is not None and now - self._empty_since > _EMPTY

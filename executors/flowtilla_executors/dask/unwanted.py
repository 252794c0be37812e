"""Calls that nobody wants any more: all workers of the cluster are told to stop them, and not to begin them."""

import asyncio
import contextlib
from typing import Any

from distributed import Client

from flowtilla_executors.dask import stop
from flowtilla_executors.dask.handle import Handle

#: Seconds that the workers may take to answer.
_ANSWER = 3.0

#: Seconds until they are told again when one did not answer, at first and at most.
_PAUSE, _LONGEST_PAUSE = 0.2, 10.0


class Unwanted:
    """Tells the workers; once for all calls that are added in one moment.

    Args:
        client: connected to the cluster.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._handles: list[Handle] = []
        self._telling: set[asyncio.Task[None]] = set()

    def add(self, handle: Handle) -> None:
        """Takes a call that has an outcome; its handle is told when nothing of it runs any more."""
        handle.leaving = asyncio.get_running_loop().create_future()
        if not self._handles:
            telling = asyncio.create_task(self._tell())
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)
        self._handles.append(handle)

    async def _tell(self) -> None:
        await asyncio.sleep(0)  # others may come with it
        handles, self._handles = self._handles, []
        pause = _PAUSE
        while (running := await self._ask([handle.key for handle in handles])) is None:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            if self._client.status != "running" or not any(handle.leaves for handle in handles):
                return
        # Of a call that runs, its task says when it has left the stage.
        for handle in handles:
            if handle.key not in running:
                handle.left()

    async def _ask(self, keys: list[str]) -> set[str] | None:
        """Returns which calls still run, or None if a worker did not say: it is dying, or busy, and may run any."""
        answers: list[Any] | None = None
        with contextlib.suppress(Exception):  # the cluster may be dying
            async with asyncio.timeout(_ANSWER):
                answers = [*(await self._client.run(stop.forbid, keys, on_error="return")).values()]
        if answers is None or not all(isinstance(answer, list) for answer in answers):
            return None
        return {key for answer in answers for key in answer}

"""Calls that nobody wants any more: all workers of the cluster are told to stop them, and not to begin them."""

import asyncio
import contextlib
from typing import Any

from distributed import Client

from flowtilla_executors.dask import stop
from flowtilla_executors.dask.handle import Handle

#: Seconds that the workers may take to answer.
_ANSWER = 3.0


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
        answers: list[Any] = []
        with contextlib.suppress(Exception):  # the cluster may be dying
            async with asyncio.timeout(_ANSWER):
                keys = [handle.key for handle in handles]
                answers = [*(await self._client.run(stop.forbid, keys, on_error="return")).values()]
        # Of a call that runs, its task says when it has left the stage; a worker that did not answer may run any.
        if answers and all(isinstance(answer, list) for answer in answers):
            running = {key for answer in answers for key in answer}
            for handle in handles:
                if handle.key not in running:
                    handle.left()

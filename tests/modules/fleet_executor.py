"""An executor of a user's own, named in the configuration by its dotted path: a cluster whose fate a file tells.

The first word of the file `cluster` in the executor's folder says how the cluster is, the rest is the reason. It is
`up` (as when there is no file), `starting` or `stuck` (a start takes as long as the file says so; a stuck one does not
heed that it is cancelled), `away` or `strange`. One that was up is `dead` (the executor notices, and so do its calls),
`silent` (only the executor notices: calls hang, and so does stopping them) or `torn` (only the calls notice).
"""

import asyncio
import time
from pathlib import Path
from typing import Any

from flowtilla.errors import ClusterLost, ClusterMismatch, ClusterUnreachable
from flowtilla_executors import ExecutorInfo, Outcome
from flowtilla_executors.local import LocalExecutor

#: Seconds between two looks at the file.
_LOOK = 0.02


class FleetExecutor(LocalExecutor):
    """Runs stages in threads, as long as its cluster lives.

    Args:
        folder: where the file is.
    """

    kind = "fleet"

    def __init__(self, folder: str) -> None:
        super().__init__(cpus=4, mode="threads")
        self._file = Path(folder, "cluster")

    async def _start(self, log_sink: Any, modules: Any) -> None:
        while self._fate() == "starting":
            await asyncio.sleep(_LOOK)
        await asyncio.to_thread(self._hang)
        if self._fate() == "away":
            raise ClusterUnreachable(f"the cluster of the test does not answer: {self._why()}")
        if self._fate() == "strange":
            raise ClusterMismatch(f"the cluster of the test is not like this worker: {self._why()}")
        self._lost: asyncio.Future[ClusterLost] = asyncio.get_running_loop().create_future()
        await super()._start(log_sink, modules)
        self._modules = modules
        self._watching = asyncio.create_task(self._watch())

    async def _close(self) -> None:
        self._watching.cancel()
        await super()._close()

    async def outcome(self, handle: Any) -> Outcome:
        ended = asyncio.ensure_future(super().outcome(handle))
        await asyncio.wait({ended, self._lost}, return_when=asyncio.FIRST_COMPLETED)
        if not self._lost.done():
            return await ended
        if self._fate() == "silent":
            await asyncio.Event().wait()
        raise self._lost.result()

    async def cancel(self, handle: Any) -> None:
        if self._fate() == "silent":
            await asyncio.Event().wait()
        await super().cancel(handle)

    async def lost(self) -> ClusterLost:
        error = await asyncio.shield(self._lost)
        if self._fate() == "torn":
            await asyncio.Event().wait()
        return error

    def info(self) -> ExecutorInfo:
        detail = f"the cluster of the test, with {', '.join(self._modules)}"
        return ExecutorInfo(self.kind, str(self._file), 4, {}, detail)

    async def _watch(self) -> None:
        while self._fate() not in ("dead", "silent", "torn"):
            await asyncio.sleep(_LOOK)
        # What stages wrote before is on its way to the worker.
        self._crew.flush_logs()
        self._lost.set_result(ClusterLost(f"the cluster of the test died: {self._why()}"))

    def _hang(self) -> None:
        while self._fate() == "stuck":
            time.sleep(_LOOK)

    def _fate(self) -> str:
        return self._said().partition(" ")[0] or "up"

    def _why(self) -> str:
        return self._said().partition(" ")[2]

    def _said(self) -> str:
        return self._file.read_text() if self._file.exists() else ""

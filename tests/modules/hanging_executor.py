"""An executor of a user's own that, asked for an outcome, blocks the worker's event loop."""

import time
from pathlib import Path
from typing import Any

from flowtilla_executors import Outcome
from flowtilla_executors.local import LocalExecutor


class HangingExecutor(LocalExecutor):
    """Runs stages in threads, and hangs as long as there is a file `hang` in its folder.

    Args:
        folder: where the file is.
    """

    kind = "hanging"

    def __init__(self, folder: str) -> None:
        super().__init__(cpus=4, mode="threads")
        self._file = Path(folder, "hang")

    async def outcome(self, handle: Any) -> Outcome:
        self._hang_in_here()
        return await super().outcome(handle)

    def _hang_in_here(self) -> None:
        while self._file.exists():
            time.sleep(0.02)

"""One event loop on a thread of its own, which all runs of a test session and the executors they share live on."""

import asyncio
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="flowtilla-testing", daemon=True).start()
    return loop


def on_loop(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on the loop and returns its result."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    except BaseException:
        # A test that is interrupted leaves nothing running.
        future.cancel()
        raise

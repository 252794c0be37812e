"""A worker that dies at a given Redis command: `python -m crashing NUMBER before|after SETTINGS`.

It kills itself with SIGKILL just before it sends its command of that number, or just after the answer came.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import redis
import redis.asyncio.client

from flowtilla.settings import Settings
from flowtilla_executors.registry import create
from flowtilla_worker.connections import Connections
from flowtilla_worker.plan.catalog import Catalog
from flowtilla_worker.worker import Worker


def main(number: int, after: bool, settings: Settings) -> None:
    """Works until the queues are empty, or the worker dies."""
    die_at(number, after)
    executor = create(settings.services.compute.executor)
    Worker(settings, executor, Catalog(allowed_targets=["drawn.*"]), Connections(settings.redis), "crashing").work(True)


def die_at(number: int, after: bool) -> None:
    """Makes this process die at its Redis command of that number; a pipeline is one."""
    left = [number]

    def counted() -> bool:
        left[0] -= 1
        return left[0] < 0

    def blocking(send: Callable[..., Any]) -> Callable[..., Any]:
        def sending(*args: Any, **options: Any) -> Any:
            last = counted()
            if last and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = send(*args, **options)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return sending

    def awaited(send: Callable[..., Any]) -> Callable[..., Any]:
        async def sending(*args: Any, **options: Any) -> Any:
            last = counted()
            if last and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = await send(*args, **options)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return sending

    for kind, name, wrap in (
        (redis.Redis, "execute_command", blocking),
        (redis.client.Pipeline, "execute", blocking),
        (redis.asyncio.Redis, "execute_command", awaited),
        (redis.asyncio.client.Pipeline, "execute", awaited),
    ):
        setattr(kind, name, wrap(getattr(kind, name)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] == "after", Settings.model_validate_json(sys.argv[3]))

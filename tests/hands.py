"""A worker's hands: what it does in Redis, without the worker."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from redis import Redis

from fleet import Fleet
from flowtilla.settings import Settings, SigningSettings
from flowtilla.states import RunState
from flowtilla_worker.attempt import Attempt, Claim, Notes
from flowtilla_worker.claims import Claims
from flowtilla_worker.connections import Connections
from flowtilla_worker.scripts import REAP, RENEW
from flowtilla_worker.writer import Writer

T = TypeVar("T")


class Hands:
    """What one worker does in Redis, without the worker."""

    def __init__(self, writer: Writer, name: str, weights: Mapping[str, float]) -> None:
        self.writer = writer
        self.name = name
        limits = {"namespaces": {namespace: {"weight": weight} for namespace, weight in weights.items()}}
        self.claims = Claims(writer, name, Settings.model_validate({"limits": limits}))

    async def take(self, count: int = 1, idle: bool = True) -> list[Claim]:
        return await self.claims.take(count, idle) or []

    def attempt(self, claim: Claim) -> Attempt:
        return Attempt(claim, self.writer, self.name, SigningSettings())

    async def end(self, claim: Claim, state: RunState = RunState.FINISHED) -> None:
        await self.attempt(claim).end(state, notes=Notes(), keep=60, started=time.time())

    async def lose(self, redis: Redis, claim: Claim) -> None:
        """Lets the lease of a run run out, and takes it back."""
        redis.zadd("flowtilla:leases", {claim.run_id: 1})
        redis.hset("flowtilla:looked", mapping={"at": round(time.time() * 1000), "patient_until": 0})
        names = ("flowtilla:leases", "flowtilla:looked")
        taken = await self.writer.call(REAP, names, (10, 10_000, "rq:job:", "rq:wip:", "rq:worker:"))
        assert taken == [claim.run_id.encode()]

    async def renew(self, claim: Claim) -> Any:
        args = (10_000, 60, "now", "rq:job:", 0, claim.run_id, claim.token)
        return await self.writer.call(RENEW, ("flowtilla:leases", f"rq:worker:{self.name}"), args)


def with_hands(fleet: Fleet, do: Callable[[Hands], Awaitable[T]], weights: Mapping[str, float] | None = None) -> T:
    """Lets a worker's hands do something, for whom namespaces have weights."""

    async def work() -> T:
        redis = Connections(fleet.settings.redis).asyncio()
        writer = Writer(redis)
        try:
            return await do(Hands(writer, "w", weights or {}))
        finally:
            await writer.close()
            await redis.aclose()

    return asyncio.run(work())

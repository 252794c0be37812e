"""The worker: claims runs, holds many at once on one event loop, and writes back what became of them."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError, ResponseError

from flowtilla.errors import ClusterLost
from flowtilla.settings import Settings
from flowtilla.storage import ArtifactStore
from flowtilla.workers import Order
from flowtilla_executors import Executor
from flowtilla_worker.attempt import Attempt, Claim
from flowtilla_worker.claims import Claims
from flowtilla_worker.commands import Commands
from flowtilla_worker.compute import Compute
from flowtilla_worker.connections import Connections
from flowtilla_worker.deputy import Deputy
from flowtilla_worker.engine.halt import Halt
from flowtilla_worker.engine.runner import Runner
from flowtilla_worker.heartbeat import Heartbeat
from flowtilla_worker.housekeeping import Housekeeping
from flowtilla_worker.leases import Held
from flowtilla_worker.plan.catalog import Catalog
from flowtilla_worker.plan.plan import Planner
from flowtilla_worker.registered import RegisteredWorker
from flowtilla_worker.slots import Slots
from flowtilla_worker.stopping import CLAIMED, CLOSED, GONE, Stopping
from flowtilla_worker.trouble import complain
from flowtilla_worker.watchdog import Watchdog
from flowtilla_worker.writer import Writer

_log = logging.getLogger("flowtilla.worker")

#: Seconds an idle worker waits before it looks again, in case it was not told: RQ's own requeue tells nobody.
_POLL = 1.0

#: How many runs one claim takes at most: while some are claimed and written down, the worker drives others.
_CLAIM_AT_ONCE = 24

#: Seconds until the worker's state in RQ follows when it becomes busy or idle.
_SHOW = 0.2

#: Seconds that a claim under way may take when the worker is told to stop.
_LAST_CLAIM = 5.0


class Worker(RegisteredWorker):
    """Claims runs from its queues and drives them on an executor. RQ's tools see it as any worker of RQ.

    Args:
        settings: queues, concurrency, lease, grace and the rest.
        executor: runs stages; started and closed by the worker.
        catalog: which functions may run.
        connections: the Redis.
        name: its name in the fleet; made from host and process when None.
        last_resort: takes, when the worker is told to stop, the seconds after which its process must be ended by force.
        deputy: renews the worker's leases while a stage holds its interpreter; none where stages have their own.
    """

    def __init__(
        self,
        settings: Settings,
        executor: Executor[Any],
        catalog: Catalog,
        connections: Connections,
        name: str | None = None,
        last_resort: Callable[[float], None] = lambda seconds: None,
        deputy: Deputy | None = None,
    ) -> None:
        # Stages run in other processes, perhaps in other folders: the storage's path must be absolute for them.
        self.settings = settings.model_copy(update={"storage": ArtifactStore(settings.storage).settings})
        self._own = settings.services.worker
        compute = Compute(executor, self._own.modules, self._compute_changed, self._cluster_lost)
        super().__init__(self._own, connections.blocking(), compute, name)
        self._planner = Planner(catalog)
        self._connections = connections
        self._deputy = deputy
        self._stopping = Stopping(self._own.grace, last_resort)
        self._stuck = False
        self._asked_at = 0.0
        #: Whether it ended because it was told to drain.
        self.drained = False
        self._claiming: asyncio.Task[Any] | None = None
        self._showing: asyncio.TimerHandle | None = None

    def work(self, burst: bool = False, *_: Any, **__: Any) -> bool:
        """Works until it is told to stop.

        The first SIGTERM or SIGINT stops claiming and lets runs finish in most of the grace; what is left then is
        handed back to the front of its queue, and the worker ends within the grace. The second hands back at once.

        Args:
            burst: stop when the queues are empty.

        Returns:
            Whether every run it claimed was ended or handed back.

        Raises:
            WorkerNameTaken: a live worker has the name.
            ExecutorError: the executor cannot be started; only a burst does not wait for a cluster that is not there.
        """
        return asyncio.run(self.serve(burst))

    async def serve(self, burst: bool = False) -> bool:
        """Does what `work` does, on an event loop that runs already."""
        self.take_name()
        try:
            await self._serve(burst)
            return not self._slots
        finally:
            await self._in_time(asyncio.to_thread(self.give_name_back), GONE)

    @property
    def pressed(self) -> bool:
        """Whether nobody may wait any more, now that the worker has ended, for what may still go on in threads."""
        return self._stopping.told > 0 or self._stuck or self._compute.stuck

    def stop(self) -> None:
        """Asks the worker to stop; asked again, it stops at once."""
        self._stopping.tell()
        self._wind_down()

    def _wind_down(self) -> None:
        again = self._stopping.told > 1
        _log.info("asked to stop: %s", "handing back what is left at once" if again else "finishing")
        self._loop.call_later(0 if again else self._stopping.for_runs, self._stopping.hurry.set)
        self._changed.set()
        if self._claiming is not None:
            # A Redis that is there answers a claim before this; one that is away must not keep the worker.
            self._loop.call_later(min(_LAST_CLAIM, self._stopping.left(CLAIMED)), self._claiming.cancel)

    async def _serve(self, burst: bool) -> None:
        self._begin(burst)
        listening = self._connections.asyncio()
        commands = Commands(self._slots, self.stop, self._redis, self.settings)
        background = [
            asyncio.create_task(self._claims.listen(listening, self._changed.set, commands.obey)),
            asyncio.create_task(Housekeeping(self._writer, self._redis, self.settings).run()),
        ]
        for task in background:
            task.add_done_callback(_complain)
        _log.info("worker %s listens on %s; %s", self.name, ", ".join(self.queue_names()), self._stopping)
        try:
            computing = self._compute.begin(self._slots.log_sink, patient=not burst)
            self._claiming = asyncio.create_task(self._claim_until_stopped())
            await asyncio.wait({self._claiming, computing}, return_when=asyncio.FIRST_COMPLETED)
            if computing.done():
                # There will be no executor, and so nothing to claim for.
                self._claiming.cancel()
                self._stopping.hurry.set()
                await self._slots.drain(self._stopping)
                computing.result()
            if not self._claiming.cancelled():
                self._claiming.result()
            await self._slots.drain(self._stopping)
        finally:
            for task in background:
                task.cancel()
            # Each within bounds: a cluster or a Redis that does not answer must not keep the worker from ending.
            await self._compute.close(self._stopping.left(CLOSED))
            await self._in_time(asyncio.gather(*background, return_exceptions=True), GONE)
            await self._in_time(asyncio.to_thread(self._heartbeat.stop), GONE)
            if self._deputy is not None:
                self._deputy.close()
            await self._in_time(self._writer.close(), GONE)
            await self._in_time(asyncio.gather(listening.aclose(), self._redis.aclose()), GONE)

    async def _in_time(self, closing: Awaitable[Any], share: float) -> None:
        """Waits for something that ends, until so much of the time that is left for that is spent."""
        try:
            await asyncio.wait_for(closing, self._stopping.left(share))
        except TimeoutError:
            self._stuck = True
        except (RedisError, OSError) as error:
            _log.warning("Redis could not be told that the worker ends: %s: %s", type(error).__name__, error)

    def _begin(self, burst: bool) -> None:
        """Makes what lives as long as the event loop, and begins to beat and to heed signals."""
        self._loop, self._burst = asyncio.get_running_loop(), burst
        self._changed = asyncio.Event()
        self._redis = self._connections.asyncio(patience=self._own.lease)
        self._writer = Writer(self._redis)
        self._slots = Slots(self._own.concurrency, self._runner, self._run_ended)
        self._claims = Claims(self._writer, self.name, self.settings)
        if self._deputy is not None:
            self._deputy.begin(self.name, self._slots.held)
        self._heartbeat = Heartbeat(
            self._connections.blocking(patience=self._own.lease / 2),
            self.name,
            self._own,
            self._slots.held,
            self.shown,
            self._heard,
            self.register,
            Watchdog(self._loop, self._own.lease).look,
            self._deputy.beaten if self._deputy is not None else lambda: None,
        )
        self._heartbeat.start()
        for one in (signal.SIGTERM, signal.SIGINT):
            # Only the main thread can take signals; elsewhere, `stop` is called.
            with suppress(ValueError, RuntimeError):
                self._loop.add_signal_handler(one, self._wind_down)
                # Beside what the loop does when it comes to it: should it hang, the process must end all the same.
                signal.signal(one, lambda *_: self._stopping.tell())

    async def _claim_until_stopped(self) -> None:
        """Claims runs until the worker is told to stop, or is drained, or, in a burst, nothing is left."""
        while not self._stopping.told:
            self._changed.clear()
            room = min(self._slots.free, _CLAIM_AT_ONCE) if self._compute.ready else 0
            # A run that is handed back while the claim is on its way may be behind it: only an idle claim tells of all.
            idle = not self._slots
            try:
                claims = await self._claim(room)
            except ResponseError as error:
                complain("claiming", error)
                await asyncio.sleep(_POLL)
                continue
            for claim in claims:
                self._slots.begin(claim)
                self._show_soon()
            if claims and self._deputy is not None:
                self._deputy.taken()
            if self._claims.told is Order.DRAIN and not self._slots:
                self.drained = True
                return
            if not self._compute.ready:
                # The cluster went while the claim was on its way.
                self._slots.halt_all(Halt.HANDED_BACK)
            elif self._burst and room and idle and not claims and not self._claims.told:
                return
            if len(claims) < room or not room:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL):
                        await self._changed.wait()

    async def _claim(self, room: int) -> list[Claim]:
        """Claims runs; without room for any, only hears now and then what the worker is told."""
        if not room and self._loop.time() - self._asked_at < _POLL / 2:
            return []
        before = self._claims.told
        claims = await self._claims.take(room, idle=not self._slots)
        self._asked_at = self._loop.time()
        if (told := self._claims.told) is not before:
            _log.info("told to %s", f"{told}: it takes no more runs" if told else "resume: it takes runs again")
            self._heartbeat.suspended = told is not None
            self._heartbeat.beat_now()
        return claims

    def _runner(self, claim: Claim) -> Runner:
        attempt = Attempt(claim, self._writer, self.name, self.settings.signing)
        return Runner(claim, attempt, self._compute, self._planner, self.settings)

    def _run_ended(self) -> None:
        # There is room again, or nothing left to do. A worker that had room hears of new runs.
        if self._slots.free == 1 or ((self._burst or self._claims.told is Order.DRAIN) and not self._slots):
            self._changed.set()
        self._show_soon()

    def _show_soon(self) -> None:
        if self._showing is None:
            # Soon, not at once: the run that made the worker busy comes first, and may be over by then.
            self._showing = self._loop.call_later(_SHOW, self._show_state)

    def _show_state(self) -> None:
        """Lets the worker's state in RQ follow when it has become busy or idle."""
        self._showing = None
        if bool(self._slots) != self._heartbeat.busy:
            self._heartbeat.beat_now()

    def _compute_changed(self) -> None:
        """Tells the fleet, and claims again if the executor is ready."""
        self._changed.set()
        self._heartbeat.beat_now()

    def _cluster_lost(self, error: ClusterLost) -> None:
        _log.error("%s; the runs on it (%d) go back to their queues", error, len(self._slots))
        self._slots.halt_all(Halt.CLUSTER_LOST, str(error))

    def _heard(self, lost: Held, cancelled: Held) -> None:
        """Takes what the heartbeat learned, in the heartbeat's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._slots.halt_held, lost, Halt.LOST)
            self._loop.call_soon_threadsafe(self._slots.halt_held, cancelled, Halt.CANCELLED)


def _complain(task: asyncio.Task[None]) -> None:
    """Says that something which should run for ever has ended: a fault of ours, which must not stay silent."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("a background task of the worker broke; restart it, and report this", exc_info=error)

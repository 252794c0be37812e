"""One start of the Dask executor: a connection to a cluster, the calls that run there, and what they say."""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import dask
from distributed import Client

from flowtilla.errors import ClusterLost, ExecutorError
from flowtilla_executors import remote
from flowtilla_executors.base import ExecutorInfo, LogSink
from flowtilla_executors.call import Call
from flowtilla_executors.dask import channel, collections, deaths, task
from flowtilla_executors.dask.endings import Endings, early
from flowtilla_executors.dask.handle import Handle
from flowtilla_executors.dask.health import Health
from flowtilla_executors.dask.needs import COUNTED, demanded, met, needed
from flowtilla_executors.dask.options import Options
from flowtilla_executors.dask.unwanted import Unwanted
from flowtilla_executors.failures import cancelled, failed, timed_out
from flowtilla_executors.outcome import Failure, Outcome
from flowtilla_executors.resources import MISSED, waits

#: Bytes from which copying a value may hold up the event loop.
_BIG = 1024 * 1024

# A run's input may be large; whoever set its limit knows.
dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"})

_DIGITS = str.maketrans("", "", "0123456789")


class Session:
    """Calls on a cluster. Lives in the event loop.

    Args:
        options: the executor's.
        client: connected to the cluster.
        health: of the cluster.
        log_sink: takes log lines.
        stack: closes what was opened.
        dashboard: where a local cluster has one.
    """

    def __init__(
        self,
        options: Options,
        client: Client,
        health: Health,
        log_sink: LogSink,
        stack: contextlib.AsyncExitStack,
        dashboard: str | None = None,
    ) -> None:
        self._options = options
        self._client = client
        self._health = health
        self._log_sink = log_sink
        self._stack = stack
        self._dashboard = dashboard
        self._loop = asyncio.get_running_loop()
        self._id = secrets.token_hex(4)
        self._numbers = itertools.count()
        self._open: dict[str, Handle] = {}
        self._topic = channel.TOPICS + self._id
        self._client.subscribe_topic(self._topic, self._heard)
        self._known: WeakValueDictionary[str, Handle] = WeakValueDictionary()
        self._endings = Endings(self.lost)
        self._client.subscribe_topic(deaths.TOPIC, self._died)
        self._unwanted = Unwanted(client)
        self._watching = self._loop.create_task(self._watch())
        self._lost: ClusterLost | None = None

    def info(self) -> ExecutorInfo:
        """Returns what the cluster has now."""
        workers = self._health.workers
        totals: dict[str, float] = {}
        for worker in workers:
            for name, amount in worker["resources"].items():
                totals[name] = totals.get(name, 0.0) + amount
        threads = sum(worker["nthreads"] for worker in workers)
        address = self._options.address
        where = f"at {address}" if address else f"of this machine at {self._client.scheduler.address}"
        detail = f"Dask cluster {where}: {len(workers)} worker processes, {threads} threads"
        if self._dashboard is not None:
            detail += f", dashboard at {self._dashboard}"
        logical = {name: amount for name, amount in totals.items() if name not in COUNTED}
        return ExecutorInfo("dask", address, float(threads), logical, detail)

    async def lost(self) -> ClusterLost:
        """Waits until the cluster is gone, and returns how."""
        return await asyncio.shield(self._watching)

    def submit(self, call: Call, parents: Sequence[Handle]) -> Handle:
        """Begins a call once its parents have ended and there is room for it."""
        if without := next((parent for parent in parents if not parent.has_value), None):
            raise ExecutorError(f"the call of stage {without.call.context.stage!r} failed: it has no value to take")
        away = self._options.bounded and not met(call, self._health.offers)
        resources = demanded(call, self._health.counted)
        handle = Handle(call, parents)
        if self._lost is not None or any(parent.future is None for parent in parents):
            handle.lose(self._lost or ClusterLost("the cluster that held a parent's value is gone"))
            return handle
        try:
            payload = remote.dumped(call)
        except Exception as error:
            handle.settle(failed(Failure.of(error)))
            return handle
        self._send(handle, payload, resources)
        handle.following = self._loop.create_task(self._follow(handle, payload, resources))
        if away and not self._options.grows:
            self._loop.call_later(MISSED, self._say_if_it_waits, handle)
        return handle

    async def fetch(self, handle: Handle) -> Any:
        """Returns the value of a call that succeeded."""
        if not handle.settled or not handle.has_value or handle.future is None:
            how = "failed" if handle.settled else "has not ended"
            raise ExecutorError(f"the call of stage {handle.call.context.stage!r} {how}: it has no value to take")
        gathering = asyncio.ensure_future(self._client.gather(handle.future))
        await asyncio.wait({gathering, self._watching}, return_when=asyncio.FIRST_COMPLETED)
        if not gathering.done():
            gathering.cancel()
            raise self._watching.result()
        if gathering.cancelled() or (error := gathering.exception()) is not None:
            raise await self._endings.within_verdict() or ExecutorError(
                f"the value of stage {handle.call.context.stage!r} cannot be fetched from {self._health.name}: {error}"
            )
        kept = gathering.result()
        return await asyncio.to_thread(kept.value.load) if kept.value.size > _BIG else kept.value.load()

    async def cancel(self, handle: Handle) -> None:
        """Stops a call, and those submitted ahead that depend on it; none of them begins after this.

        Returns once the worker that ran it says that it has left the stage, or all say that it does not run.
        """
        self._end_now(handle, cancelled(handle.call, "the worker was told to stop it", handle.started))
        if handle.leaving is not None:
            ends: set[asyncio.Future[Any]] = {handle.leaving, self._watching}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Ends all calls and leaves the cluster; ends that too if it is ours."""
        self._watching.cancel()
        for handle in list(self._open.values()):
            handle.settle(cancelled(handle.call, "its executor was closed", handle.started))
            self._release(handle)
        await self._stack.aclose()

    def _heard(self, event: Any) -> None:
        key, what, content = channel.received(event)
        if (handle := self._known.get(key)) is None:
            return
        if what == "left":
            # Also when a value that was lost has been made again.
            handle.parts = collections.held(self._client, content)
        elif what == "stopped":
            handle.left()
        elif key in self._open or (what == "lines" and handle.leaves):
            self._note(handle, what, content)

    def _note(self, handle: Handle, what: str, content: Any) -> None:
        if what == "lines":
            self._log_sink(content)
        elif what == "ended":
            handle.said = content
        elif handle.call.timeout is not None:
            # Anew, if it began before in a process that died.
            handle.stop_clock()
            handle.started = content
            handle.clock = self._loop.call_later(handle.call.timeout, self._overdue, handle)

    def _died(self, event: Any) -> None:
        death = event[1]
        how = self._endings.died(death["address"], death["code"])
        for key in death["running"]:
            if (handle := self._known.get(key)) is not None:
                handle.deaths.append(how)
                handle.left()

    def _say_if_it_waits(self, handle: Handle) -> None:
        call = handle.call
        if not handle.settled and handle.started is None and not met(call, self._health.offers):
            self._log_sink([waits(call.context, needed(call))])

    def _overdue(self, handle: Handle) -> None:
        self._end_now(handle, timed_out(handle.call, handle.started))

    def _end_now(self, handle: Handle, outcome: Outcome) -> None:
        """Ends a call whatever it does, and those ahead of it; their tasks nobody wants now."""
        if not handle.settled:
            handle.settle(outcome)
            self._unwanted.add(handle)
            for child in list(handle.children):
                self._end_now(child, early())
            self._release(handle)

    def _send(self, handle: Handle, payload: bytes, resources: dict[str, float]) -> None:
        call = handle.call
        handle.said = handle.started = None
        handle.key = f"{call.context.stage.translate(_DIGITS)}-0{self._id}{next(self._numbers)}"
        handle.future = self._client.submit(
            task.run,
            self._topic,
            payload,
            *[parent.future for parent in handle.parents],
            key=handle.key,
            pure=False,
            priority=call.priority,
            resources=resources or None,
        )
        self._open[handle.key] = self._known[handle.key] = handle

    async def _follow(self, handle: Handle, payload: bytes, resources: dict[str, float]) -> None:
        """Settles a call when its task has ended."""
        try:
            while (outcome := await self._endings.of(handle)) is None:
                self._open.pop(handle.key, None)
                self._send(handle, payload, resources)
        except Exception as error:  # a fault of ours must not let a run wait for ever
            outcome = failed(Failure.of(error), handle.started)
        handle.settle(outcome)
        self._open.pop(handle.key, None)

    async def _watch(self) -> ClusterLost:
        self._lost = error = await self._health.watch()
        for handle in list(self._open.values()):
            handle.lose(error)
            self._release(handle)
        return error

    def _release(self, handle: Handle) -> None:
        """Lets go of a call's task: the scheduler forgets it, and its worker stops it."""
        self._open.pop(handle.key, None)
        if handle.following is not None:
            handle.following.cancel()
        if handle.future is not None:
            handle.future.release()
            handle.future = None
        handle.parts = []

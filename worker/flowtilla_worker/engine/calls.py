"""Calls of stage functions on the executor: how they are made, awaited, and tried again."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from flowtilla.context import Context
from flowtilla.errors import ClusterLost, ExecutorClosed, FlowtillaError, StageTimeout, ValueLost
from flowtilla.logs import LogLine
from flowtilla.message import Message
from flowtilla.settings import StorageSettings
from flowtilla.workflow import Retries
from flowtilla_executors import Call, Executor, Failure, Items, Literal, Outcome
from flowtilla_executors.outcome import class_name
from flowtilla_executors.recorder import host
from flowtilla_worker.attempt import Claim
from flowtilla_worker.engine.value import Parents, Value
from flowtilla_worker.plan.plan import PlannedStage

#: Seconds that an executor may take until it knows that nothing of a call runs any more: with the way from the client,
#: and that to the run's end, less than 5.
_STOP_WITHIN = 4.0

#: How a call fails that took too long, and one that only another attempt can make.
_TIMED_OUT, _VALUE_LOST = class_name(StageTimeout), class_name(ValueLost)


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that has ended: its handle, which holds the value, and its outcome."""

    handle: Any
    outcome: Outcome
    tries: int = 1


class Caller:
    """Makes the calls of one attempt.

    Args:
        executor: runs them.
        claim: the attempt.
        message: the run's input and config.
        storage: where stages store artifacts.
        log: takes the lines that came with an outcome.
        abandon: takes what a try stored that is followed by another.
        over: when the run's time is over, in seconds since the epoch; None when it has no limit.
    """

    def __init__(
        self,
        executor: Executor[Any],
        claim: Claim,
        message: Message,
        storage: StorageSettings,
        log: Callable[[Sequence[LogLine]], None],
        abandon: Callable[[Sequence[dict[str, Any]]], Awaitable[None]],
        over: float | None,
    ) -> None:
        self._executor = executor
        self._message = message
        self._log = log
        self._abandon = abandon
        self._unsure: set[str] = set()
        self._context = Context(
            run_id=claim.run_id,
            namespace=message.namespace,
            workflow=message.workflow.name,
            stage="",
            attempt=claim.attempt,
            executor=executor.kind,
            _input=message.input,
            _config=message.config,
            _storage=storage,
            _over=over,
        )

    def stage_call(self, planned: PlannedStage, values: Sequence[Value], parents: Parents) -> Call:
        """Returns the call of a stage, but for the items of a mapped one.

        Args:
            planned: the stage.
            values: the values of its parents, in `depends_on` order.
            parents: collects the handles that the call depends on.
        """
        given = self._message.input if not planned.stage.depends_on else {}
        args = [parents.argument(values[position]) for position in planned.binding.parents]
        args += [Literal(value) for value in planned.binding.positional_inputs(given)]
        resources = planned.resources
        return Call(
            target=planned.portable,
            context=replace(self._context, stage=planned.name, timeout=planned.options.timeout),
            args=tuple(args),
            kwargs=planned.binding.keyword_inputs(given),
            readonly=bool(planned.options.readonly_arguments),
            timeout=planned.options.timeout,
            cpus=resources.cpus,
            gpus=resources.gpus,
            memory=resources.memory,
            resources=resources.logical,
            priority=planned.options.priority or 0,
        )

    def internal_call(self, function: Callable[..., Any], stage: str, *args: Any) -> Call:
        """Returns a call of one of our own functions, for what must not pass through the worker."""
        context = replace(self._context, stage=stage)
        return Call(f"{function.__module__}.{function.__qualname__}", context, args=args, cpus=0)

    async def run(
        self,
        call: Call,
        parents: Sequence[Any],
        retries: Retries | None = None,
        *,
        begun: Any = None,
        submitted: Callable[[Any], None] | None = None,
    ) -> Ended:
        """Makes a call, again while its retries last, and returns how the last try ended.

        Cancelling the task that awaits this stops the call in the cluster.

        Args:
            call: the call.
            parents: the handles it refers to.
            retries: how a failed try is repeated.
            begun: the handle of the first try, if it was submitted ahead.
            submitted: called with the handle of each other try.

        Raises:
            ClusterLost: the cluster is gone, or about to be started again.
            ValueLost: it has lost what the call needs.
        """
        tries = 0
        while True:
            tries += 1
            ended = await self._await(begun, call, tries) if begun is not None else None
            begun = None
            if ended is None or ended.outcome.early:
                call = replace(call, ahead=False) if call.ahead else call
                ended = await self._once(call, parents, tries, submitted)
            failure = ended.outcome.failure or _first_item_failure(ended.outcome)
            if failure is None or retries is None or not _worth_retrying(retries, failure, tries):
                return ended
            await self._abandon(ended.outcome.artifacts)
            await asyncio.sleep(_delay(retries, tries))

    @property
    def input(self) -> dict[str, Any]:
        """The run's input."""
        return self._message.input

    @property
    def attempt(self) -> int:
        """The attempt's number."""
        return self._context.attempt

    @property
    def submits_ahead(self) -> bool:
        """Whether a call may be submitted before those it refers to have ended."""
        return self._executor.submits_ahead

    @property
    def cpus(self) -> float:
        """How many calls of one cpu the executor runs at once."""
        return self._executor.info().cpus

    def submit(self, call: Call, parents: Sequence[Any]) -> Any:
        """Begins a call and returns its handle; raises as the executor does."""
        return self._executor.submit(call, parents)

    async def cancel(self, handle: Any, stage: str) -> None:
        """Stops a call of a stage and waits until nothing of it runs; the log says if that is not known in time."""
        # Once its cluster is gone the executor is closed, and there is nothing to stop.
        if self._executor.running:
            try:
                async with asyncio.timeout(_STOP_WITHIN):
                    with suppress(ClusterLost):
                        await self._executor.cancel(handle)
            except TimeoutError:
                self._say_unsure(stage)

    async def _once(
        self, call: Call, parents: Sequence[Any], tries: int, submitted: Callable[[Any], None] | None
    ) -> Ended:
        try:
            handle = self.submit(call, parents)
        except (ClusterLost, ExecutorClosed):
            raise
        except FlowtillaError as error:
            # Resources that no node has, for example: what the call would have said, had it begun.
            return Ended(None, _never_ran(Failure.of(error)), tries)
        if submitted is not None:
            submitted(handle)
        return await self._await(handle, call, tries)

    async def _await(self, handle: Any, call: Call, tries: int) -> Ended:
        try:
            outcome = await self._executor.outcome(handle)
        except asyncio.CancelledError:
            await self.cancel(handle, call.context.stage)
            raise
        self._log(outcome.logs)
        if outcome.failure is not None and outcome.failure.error == _VALUE_LOST:
            raise ValueLost(outcome.failure.message)
        if outcome.failure is not None and outcome.failure.error == _TIMED_OUT:
            # Its outcome was there at once; another try must not run beside it.
            await self.cancel(handle, call.context.stage)
        return Ended(handle, outcome, tries)

    def _say_unsure(self, stage: str) -> None:
        if stage not in self._unsure:
            self._unsure.add(stage)
            said = f"stage {stage!r} was told to stop, and {_STOP_WITHIN:g} s later it is not known whether it has"
            here = self._context
            line = LogLine(here.run_id, stage, None, here.attempt, time.time(), host(), "flowtilla", "WARNING", said)
            self._log([line])


def with_items(call: Call, items: Items) -> Call:
    """Returns the call as a mapped one."""
    return replace(call, items=items)


def begun_now(call: Call, stage_timeout: float | None) -> Call:
    """Returns the call of a stage whose time begins now, so that it can tell when that is over."""
    if stage_timeout is None:
        return call
    over = time.time() + stage_timeout
    whole = call.context._over
    return replace(call, context=replace(call.context, _over=over if whole is None else min(over, whole)))


def _first_item_failure(outcome: Outcome) -> Failure | None:
    return outcome.item_failures[0][1] if outcome.item_failures else None


def _worth_retrying(retries: Retries, failure: Failure, tries: int) -> bool:
    return tries <= retries.count and (not retries.on or not set(retries.on).isdisjoint(failure.bases))


def _delay(retries: Retries, tries: int) -> float:
    """Returns the seconds before the next try: exponential, within bounds, spread so that many do not come at once."""
    delay = min(retries.delay * retries.backoff ** min(tries - 1, 64), retries.max_delay)
    return min(delay * random.uniform(1 - retries.jitter, 1 + retries.jitter), retries.max_delay)


def _never_ran(failure: Failure) -> Outcome:
    return Outcome(started=0.0, ended=0.0, host="", pid=0, failure=failure)

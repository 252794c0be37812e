"""Takes one claimed run from its claim to its end."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from flowtilla.errors import (
    ClusterLost,
    ExecutorClosed,
    FlowtillaError,
    LeaseLost,
    MessageError,
    StageTimeout,
    StorageError,
    ValueLost,
)
from flowtilla.logs import LogLine
from flowtilla.message import Message, parse, unpack
from flowtilla.record import ErrorRecord, StageRecord
from flowtilla.settings import Settings
from flowtilla.signing import check_run
from flowtilla.states import RunState, StageState
from flowtilla.storage.logs import load_log, store_log
from flowtilla.untrusted import from_json
from flowtilla_executors import Failure
from flowtilla_executors.outcome import class_name
from flowtilla_executors.recorder import host
from flowtilla_worker.attempt import Attempt, Claim
from flowtilla_worker.compute import Compute
from flowtilla_worker.engine.calls import Caller
from flowtilla_worker.engine.halt import Halt, fault
from flowtilla_worker.engine.journal import Journal
from flowtilla_worker.engine.keeper import INLINE, Keeper, NotKept, inline_json
from flowtilla_worker.engine.log import RunLog
from flowtilla_worker.engine.poison import poison
from flowtilla_worker.engine.restore import done_before
from flowtilla_worker.engine.stages import Engine, error_record
from flowtilla_worker.plan.plan import Plan, Planner

_log = logging.getLogger("flowtilla.worker")


class Runner:
    """Drives one attempt of one run.

    Args:
        claim: what was claimed.
        attempt: its writes.
        compute: the executor that runs its stages.
        planner: makes the plan, from the functions that may run.
        settings: limits, storage with an absolute path, retention.
    """

    def __init__(
        self,
        claim: Claim,
        attempt: Attempt,
        compute: Compute,
        planner: Planner,
        settings: Settings,
    ) -> None:
        self.claim = claim
        self._attempt = attempt
        self._compute = compute
        self._planner = planner
        self._settings = settings
        self._storage = settings.storage
        self._started = time.time()
        self._keep = settings.retention
        self._ending = False
        self._why: Halt | None = None
        self._reason = ""
        self._task: asyncio.Task[Any] | None = None
        self._earlier: dict[str, StageRecord] = {}
        self._run_log = RunLog(partial(store_log, settings.storage, claim.namespace, claim.run_id))
        careful = claim.count("strikes") > 0
        self._journal = Journal(attempt, self._run_log, claim.count("stages"), self.halt, careful)

    def halt(self, why: Halt, reason: str = "") -> None:
        """Stops the run soon; the first reason counts, and once the run is being ended none does."""
        if not self._ending and self._why is None:
            self._why, self._reason = why, reason
            if self._task is not None:
                self._task.cancel()

    async def give_up(self) -> None:
        """Hands the run back though its stages have not stopped yet: what they still do counts for nothing."""
        self._why = Halt.LOST
        with suppress(LeaseLost):
            # They arrive in this order, and together: there may be no time for two round trips.
            await asyncio.gather(self._attempt.write(self._journal.take()), self._attempt.release(Halt.HANDED_BACK))

    def log(self, lines: Sequence[LogLine]) -> None:
        """Takes lines that its stages wrote."""
        self._journal.log(lines)

    async def run(self) -> RunState | Halt:
        """Drives the attempt to its end, and returns how it ended."""
        self._task = asyncio.current_task()
        if "cancel" in self.claim.job:
            self.halt(Halt.CANCELLED)
        elif self._why is not None and self._task is not None:
            self._task.cancel()
        try:
            try:
                return await self._work()
            except (ClusterLost, ExecutorClosed, ValueLost) as error:
                # The first to say so, perhaps; whoever says more from here on comes too late.
                self._why, self._reason = self._why or Halt.CLUSTER_LOST, self._reason or str(error)
                if isinstance(error, ClusterLost):
                    self._compute.report(error)
                return await self._stop(self._why)
            except asyncio.CancelledError:
                if self._task is None or self._why is None:
                    raise
                # Stages that ran were stopped in the cluster before this.
                self._task.uncancel()
                return await self._stop(self._why)
        except LeaseLost as error:
            _log.warning("%s", error)
            return Halt.LOST
        except Exception:
            # A fault of ours. The run is tried again, as often as one that kills its worker.
            self._reason = fault()
            return await self._stop(Halt.BROKE)
        finally:
            await self._journal.close()

    async def _work(self) -> RunState:
        try:
            body = self._genuine()
            if self.claim.attempt > 1:
                await self._resume()
            # Before all else: even reading the run's message or importing its targets may be what kills workers.
            if (why := poison(self.claim, self._earlier, self._run_log.recent)) is not None:
                return await self._end(RunState.QUARANTINED, error=_refused(why))
            message, plan = await self._prepare(body)
            over = self._over(message)
        except FlowtillaError as error:
            return await self._end(RunState.FAILED, error=_refused(error))
        keeper = Keeper(self._storage, message.namespace, self.claim.run_id)
        log = self._journal.log
        caller = Caller(self._compute.executor, self.claim, message, self._storage, log, keeper.discard, over)
        try:
            engine = await self._engine(plan, caller, keeper)
            async with asyncio.timeout(None if over is None else over - time.time()) as limit:
                await engine.run()
        except NotKept as error:
            return await self._end(RunState.FAILED, error=_outside(error.failure))
        except (StorageError, MessageError) as error:
            return await self._end(RunState.FAILED, error=_refused(error))
        except TimeoutError:
            if not limit.expired():
                raise
            return await self._end(RunState.FAILED, error=_refused(_too_long(message)))
        if engine.error is not None:
            return await self._end(RunState.FAILED, error=engine.error)
        return await self._finish(plan, engine, caller, keeper)

    def _over(self, message: Message) -> float | None:
        """Returns when the run's time is over, in seconds since the epoch; all its attempts count.

        Raises:
            StageTimeout: it is.
        """
        if message.timeout is None:
            return None
        over = self._started - self.claim.elapsed + message.timeout
        if over <= time.time():
            raise _too_long(message)
        return over

    def _genuine(self) -> bytes:
        """Returns the run's message, not yet read, if it is what a holder of a key submitted."""
        claim = self.claim
        body = unpack(claim.job.get("data", b""), self._settings.max_message)
        check_run(self._settings.signing, claim.signature, claim.run_id, claim.namespace, claim.queue, body)
        return body

    async def _prepare(self, body: bytes) -> tuple[Message, Plan]:
        message = parse(body)
        if message.namespace != self.claim.namespace:
            raise MessageError(
                f"the run's message is of namespace {message.namespace!r}, and its id of {self.claim.namespace!r:.150}"
                ": submit it again"
            )
        self._keep = message.retention
        await self._planner.load(message.workflow)
        plan = self._planner.plan(message.workflow)
        plan.check_input(message.input)
        return message, plan

    async def _engine(self, plan: Plan, caller: Caller, keeper: Keeper) -> Engine:
        """Returns the engine, with what earlier attempts committed."""
        kept = self._attempt.seal.genuine("value", self.claim.values)
        done = done_before(plan, self._earlier, kept.keys())
        self._journal.resume(self._earlier[name] for name in done)
        values = {}
        for name in done:
            with _reading(f"what stage {name!r} left"):
                await keeper.publish(self._earlier[name].artifacts)
                if name in kept:
                    values[name] = await keeper.restore(caller, name, kept[name])
        return Engine(plan, caller, self._journal, keeper, done, values)

    async def _finish(self, plan: Plan, engine: Engine, caller: Caller, keeper: Keeper) -> RunState:
        values = {name: engine.values[name] for name in plan.finals}
        texts = {name: text for name, value in values.items() if (text := inline_json(value)) is not None}
        only = plan.finals[0] if len(plan.finals) == 1 else None
        if len(texts) == len(values) and sum(map(len, texts.values())) <= INLINE:
            result = {name: value.inline for name, value in values.items()}
            return await self._end(RunState.FINISHED, result=result[only] if only else result)
        await self._attempt.check()
        try:
            references: dict[str, Any] = dict(keeper.references)
            for name in texts:
                # Each is small, all together are not.
                references[name] = await keeper.refer(caller, plan.stages[name], values[name])
        except NotKept as error:
            return await self._end(RunState.FAILED, error=_outside(error.failure))
        reference = references[only] if only else {"stages": references}
        shown = {key: value for key, value in reference.items() if key != "record"}
        return await self._end(RunState.FINISHED, result=shown, job={"result_reference": json.dumps(reference)})

    async def _end(
        self,
        state: RunState,
        *,
        result: Any = None,
        error: ErrorRecord | None = None,
        job: dict[str, str] | None = None,
    ) -> RunState:
        for record in list(self._journal.records.values()):
            if not record.state.ended:
                self._journal.note(replace(record, state=StageState.CANCELLED, ended=time.time()))
        fields = dict(job or {}) | await self._store_log()
        # From here Redis decides: the attempt ends the run, or has lost it.
        self._ending = True
        notes = self._journal.take(job=fields)
        await self._attempt.end(state, notes=notes, keep=self._keep, started=self._started, result=result, error=error)
        return state

    async def _resume(self) -> None:
        """Takes up what earlier attempts left: their log, and the records of their stages."""
        try:
            with _reading("the log"):
                await self._resume_log()
        except FlowtillaError as error:
            _log.error("run %s: what earlier attempts logged cannot be read any more: %s", self.claim.run_id, error)
        with _reading("the record of a stage"):
            texts = self._attempt.seal.genuine("stage", self.claim.stages)
            self._earlier = {name: StageRecord.from_json(name, text) for name, text in texts.items()}
        self._journal.ended_before = {name for name, record in self._earlier.items() if record.state.ended}

    async def _resume_log(self) -> None:
        """Takes up the log that earlier attempts left: the parts in storage, and what came after in Redis."""
        parts = from_json(self.claim.job.get("log_parts", b"[]"))
        own = (self._storage, self.claim.namespace, self.claim.run_id)
        texts = [await asyncio.to_thread(load_log, *own, part["record"]) for part in parts]
        tail = await self._attempt.earlier_lines(after=parts[-1]["until"] if parts else 0)
        self._run_log.resume("".join(texts), tail, parts)
        self._run_log.recent.extend(LogLine.from_json(self.claim.run_id, line) for _, line in tail)

    async def _store_log(self) -> dict[str, str]:
        """Stores the whole log and returns the fields that refer to it. A log that cannot be stored fails no run."""
        text = self._run_log.whole()
        if text is None:
            return {}
        await self._attempt.check()
        try:
            reference = await asyncio.to_thread(store_log, self._storage, self.claim.namespace, self.claim.run_id, text)
        except FlowtillaError as error:
            _log.error("run %s: its log could not be stored: %s", self.claim.run_id, error)
            return {}
        # The run may be queued again, long after Redis has forgotten the lines.
        return {"log_reference": json.dumps(reference), "log_parts": json.dumps([self._run_log.part(reference)])}

    async def _stop(self, why: Halt) -> RunState | Halt:
        """Ends a run whose work was stopped."""
        if why is Halt.LOST:
            return why
        if why is Halt.CANCELLED:
            return await self._end(RunState.CANCELLED)
        if why is Halt.BROKE:
            _log.error("run %s: attempt %d broke: %s", self.claim.run_id, self.claim.attempt, self._reason)
        if why in (Halt.CLUSTER_LOST, Halt.BROKE):
            said = f"attempt {self.claim.attempt} ended: {self._reason}; the run goes back to its queue"
            self._journal.log([self._line(said)])
        await self._attempt.write(self._journal.take())
        await self._attempt.release(why)
        return why

    def _line(self, message: str) -> LogLine:
        """Returns a line for the run's log that no stage wrote."""
        claim = self.claim
        return LogLine(claim.run_id, "", None, claim.attempt, time.time(), host(), "flowtilla", "ERROR", message)


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turns what damaged data raises into an error that ends the run."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        if isinstance(error, FlowtillaError):
            raise
        raise MessageError(
            f"{what} in Redis is damaged ({type(error).__name__}: {error}): submit the run again"
        ) from error


def _refused(error: FlowtillaError) -> ErrorRecord:
    """Returns the error of a run that failed in no stage; where in our code it was raised helps nobody."""
    return ErrorRecord(class_name(type(error)), str(error))


def _outside(failure: Failure) -> ErrorRecord:
    """Returns the error of a run that failed in no stage of its own."""
    return replace(error_record(failure, ""), stage=None)


def _too_long(message: Message) -> StageTimeout:
    return StageTimeout(
        f"the run took longer than its timeout of {message.timeout:g} s: "
        "submit it with a larger timeout, or make its stages faster"
    )

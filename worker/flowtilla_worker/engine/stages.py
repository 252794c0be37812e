"""Drives the stages of one attempt: each is begun as soon as its own parents are done."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import replace
from functools import partial

from flowtilla.errors import LeaseLost, StageTimeout
from flowtilla.record import ErrorRecord, StageRecord
from flowtilla.states import StageState
from flowtilla_executors import MISSING, Failure, Literal
from flowtilla_worker.engine.ahead import Ahead
from flowtilla_worker.engine.calls import Caller, begun_now
from flowtilla_worker.engine.journal import Journal
from flowtilla_worker.engine.keeper import Keeper, NotKept
from flowtilla_worker.engine.mapping import Mapped, Piece, StageMap, Stream
from flowtilla_worker.engine.value import Parents, Value
from flowtilla_worker.plan.plan import Plan, PlannedStage


class StageFailed(Exception):
    """A stage raised; its record says what."""

    def __init__(self, record: StageRecord) -> None:
        super().__init__(record.name)
        self.record = record


class Engine:
    """Drives the stages of one attempt.

    Args:
        plan: the workflow.
        caller: makes calls on the executor.
        journal: takes records and log lines.
        keeper: stores what does not fit into a record, and publishes artifacts.
        done: the stages that need not run again.
        values: the values of those of them that somebody may need.
    """

    def __init__(
        self,
        plan: Plan,
        caller: Caller,
        journal: Journal,
        keeper: Keeper,
        done: Collection[str],
        values: Mapping[str, Value],
    ) -> None:
        self.values: dict[str, Value] = dict(values)
        self._plan = plan
        self._caller = caller
        self._journal = journal
        self._keeper = keeper
        self._open = {name for name in plan.stages if name not in done}
        self._waits = {name: {one for one in plan.stages[name].parents if one in self._open} for name in self._open}
        self._users = {name: sum(child in self._open for child in plan.stages[name].children) for name in plan.stages}
        self._streams = {name: Stream() for name in self._open if plan.stages[name].mapped}
        self._ahead = Ahead(plan, caller, self.values)
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Runs every stage that can run.

        Raises:
            LeaseLost: the run is another attempt's now.
            ClusterLost: the cluster is gone.
        """
        for name in [name for name, waits in self._waits.items() if not waits]:
            self._begin(name)
        if self._open:
            try:
                await self._settled
            finally:
                open_ends = [task for task in self._tasks if not task.done()]
                for task in open_ends:
                    task.cancel()
                if open_ends or self._ahead:
                    await asyncio.gather(*open_ends, self._ahead.close(), return_exceptions=True)

    @property
    def error(self) -> ErrorRecord | None:
        """Why the run failed: the error of the first stage, as declared, that failed."""
        records = (self._journal.records.get(stage.name) for stage in self._plan.workflow.stages)
        return next((one.error for one in records if one and one.state is StageState.FAILED), None)

    def _begin(self, name: str) -> None:
        del self._waits[name]
        task = asyncio.create_task(self._stage(self._plan.stages[name]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if name in self._streams:
            for child in self._plan.stages[name].children:
                if (
                    self._plan.stages[child].source == name
                    and self._plan.stages[child].stage.depends_on.count(name) == 1
                ):
                    self._parent_ready(child, name)

    def _parent_ready(self, child: str, parent: str) -> None:
        if child in self._waits:
            self._waits[child].discard(parent)
            if not self._waits[child]:
                self._begin(child)

    async def _stage(self, planned: PlannedStage) -> None:
        record = StageRecord(planned.name, StageState.RUNNING, attempt=self._caller.attempt, started=time.time())
        try:
            await self._journal.begin(record)
            try:
                value = await (self._map(planned, record) if planned.mapped else self._simple(planned, record))
            except StageFailed as failed:
                await self._end_badly(planned.name, failed.record)
            else:
                await self._end_well(planned, value)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # A lost lease, or a fault of ours: either way the attempt is over.
            if not self._settled.done():
                self._settled.set_exception(error)

    async def _simple(self, planned: PlannedStage, record: StageRecord) -> Value:
        if (ahead := self._ahead.take(planned.name)) is not None:
            call, handles, begun = ahead.call, ahead.parents, ahead.handle
        else:
            parents = Parents()
            call = self._caller.stage_call(planned, [self.values[one] for one in planned.stage.depends_on], parents)
            call = begun_now(call, planned.options.stage_timeout)
            handles, begun = parents.handles, None
        follow = partial(self._ahead.follow, planned.name)
        try:
            async with asyncio.timeout(planned.options.stage_timeout) as limit:
                ended = await self._caller.run(call, handles, planned.retries, begun=begun, submitted=follow)
        except TimeoutError:
            if not limit.expired():
                raise
            raise StageFailed(_failed(record, _late(planned))) from None
        outcome = ended.outcome
        record = replace(
            record,
            state=StageState.FINISHED,
            ended=time.time(),
            total=1,
            done=int(outcome.failure is None),
            retries=ended.tries - 1,
            size=outcome.size,
            artifacts=outcome.artifacts,
        )
        if outcome.failure is not None:
            await self._keeper.discard(outcome.artifacts)
            raise StageFailed(_failed(record, outcome.failure))
        value = Value(ended.handle, None, outcome.value, outcome.length, outcome.iterable, outcome.kind)
        await self._commit(planned, record, value)
        return value

    async def _map(self, planned: PlannedStage, record: StageRecord) -> Value:
        stream = self._streams[planned.name]
        try:
            value = await self._map_into(stream, planned, record)
        except StageFailed:
            await stream.close(failed=True)
            raise
        # Not before the commit: whoever maps over the stream has not ended well when its source has not.
        await stream.close(failed=False)
        return value

    async def _map_into(self, stream: Stream, planned: PlannedStage, record: StageRecord) -> Value:
        parents = Parents()
        values = [self.values.get(one, Value()) for one in planned.stage.depends_on]
        call = self._caller.stage_call(planned, values, parents)
        job = StageMap(self._caller, planned, call, parents, partial(self._progress, planned))
        mapped = await job.run(self._pieces(planned, record), stream)
        errors = {index: error_record(one, planned.name, index) for index, one in sorted(mapped.failures.items())}
        record = replace(
            record,
            ended=time.time(),
            total=mapped.total,
            done=mapped.done,
            failed=len(errors),
            retries=mapped.retries,
            errors=errors,
            artifacts=tuple(mapped.artifacts),
        )
        if mapped.late or (errors and not (planned.options.allow_partial_failure and mapped.done)):
            await self._keeper.discard(record.artifacts)
            first = error_record(_late(planned), planned.name) if mapped.late else next(iter(errors.values()))
            raise StageFailed(replace(record, state=StageState.FAILED, error=first, artifacts=()))
        value = mapped.value()
        await self._commit(planned, replace(record, state=StageState.FINISHED), value)
        return value

    async def _pieces(self, planned: PlannedStage, record: StageRecord) -> AsyncIterator[Piece]:
        """Yields what a mapped stage maps over, as it comes."""
        source = planned.source
        if source is None:
            key = planned.stage.map_on or ""
            items = self._caller.input[key]
            if not isinstance(items, (list, str, dict)):
                raise StageFailed(_failed(record, _not_iterable(planned, f"input[{key!r}]", type(items).__name__)))
            yield Piece((), Literal(list(items)), range(len(items)))
        elif source in self._streams:
            stream = self._streams[source]
            async for piece in stream:
                yield piece
            if stream.failed:
                raise StageFailed(replace(record, state=StageState.SKIPPED))
        else:
            yield await self._whole(planned, record, self.values[source])

    async def _whole(self, planned: PlannedStage, record: StageRecord, value: Value) -> Piece:
        """Returns a parent's whole value as what to map over."""
        if not value.iterable:
            what = f"the value of stage {planned.source!r}"
            raise StageFailed(_failed(record, _not_iterable(planned, what, value.kind)))
        if value.handle is None:
            items = list(value.inline)
            return Piece((), Literal(items), value.indexes or range(len(items)))
        handle, length = value.handle, value.length
        if length is None:
            # Sets and the like have no order that two processes agree on: they are listed once.
            parents = Parents()
            ended = await self._caller.run(
                self._caller.internal_call(list, planned.name, parents.parent(handle)), parents.handles
            )
            handle, length = ended.handle, ended.outcome.length
            if ended.outcome.failure is not None or length is None:
                raise StageFailed(_failed(record, ended.outcome.failure or _not_iterable(planned, "it", value.kind)))
        return Piece((), handle, value.indexes or range(length))

    def _progress(self, planned: PlannedStage, mapped: Mapped) -> None:
        record = self._journal.records[planned.name]
        if record.state is StageState.RUNNING:
            self._journal.note(replace(record, done=mapped.done, failed=len(mapped.failures), total=mapped.total))

    async def _commit(self, planned: PlannedStage, record: StageRecord, value: Value) -> None:
        final = planned.name in self._plan.finals
        if record.artifacts or value.inline is MISSING:
            await self._check(record)
        try:
            kept = await self._keeper.keep(self._caller, planned, value, final=final)
        except NotKept as error:
            raise StageFailed(_failed(record, error.failure)) from None
        last = self._open == {planned.name} and self.error is None and not record.artifacts
        if last and value.inline is not MISSING:
            # Written together with the run's end, which is next.
            self._journal.note(record)
            return
        if self._caller.submits_ahead and not record.artifacts:
            # What follows may be running already: it waits for no answer of Redis, and nor need we.
            self._journal.commit_soon(record, kept)
            return
        await self._journal.commit(record, kept)
        await self._keeper.publish(record.artifacts)

    async def _check(self, record: StageRecord) -> None:
        """Makes sure that the run is still this attempt's before something of it is stored."""
        try:
            await self._journal.check()
        except LeaseLost:
            # No commit was sent, so nobody will ever publish them.
            await self._keeper.discard(record.artifacts)
            raise

    async def _end_well(self, planned: PlannedStage, value: Value) -> None:
        self.values[planned.name] = value
        self._close(planned.name)
        for child in planned.children:
            self._parent_ready(child, planned.name)

    async def _end_badly(self, name: str, record: StageRecord) -> None:
        """Ends a stage that failed, and skips all that depends on it."""
        self._journal.note(record)
        self._close(name)
        below = list(self._plan.stages[name].children)
        while below:
            child = below.pop()
            if child in self._waits:
                del self._waits[child]
                self._journal.note(StageRecord(child, StageState.SKIPPED, attempt=self._caller.attempt))
                if child in self._streams:
                    await self._streams[child].close(failed=True)
                self._close(child)
                below += self._plan.stages[child].children

    def _close(self, name: str) -> None:
        self._open.discard(name)
        self._ahead.ended(name)
        for parent in self._plan.stages[name].parents:
            self._users[parent] -= 1
            self._free(parent)
        self._free(name)
        if not self._open and not self._settled.done():
            self._settled.set_result(None)

    def _free(self, name: str) -> None:
        """Lets go of a stage's value once nobody will ask for it again, so that the cluster need not hold it."""
        if self._users[name] == 0 and name not in self._open and self._plan.stages[name].children:
            self.values.pop(name, None)
            self._streams.pop(name, None)


def error_record(failure: Failure, stage: str, item: int | None = None) -> ErrorRecord:
    """Returns a failure as a run keeps it."""
    return ErrorRecord(failure.error, failure.message, failure.traceback, stage, item)


def _failed(record: StageRecord, failure: Failure) -> StageRecord:
    error = error_record(failure, record.name)
    return replace(record, state=StageState.FAILED, ended=time.time(), failed=1, error=error, artifacts=())


def _late(planned: PlannedStage) -> Failure:
    what = "all its items" if planned.mapped else "all its tries"
    return Failure.of(
        StageTimeout(
            f"stage {planned.name!r} with {what} took longer than its stage_timeout of "
            f"{planned.options.stage_timeout:g}s: raise it, or do less"
        )
    )


def _not_iterable(planned: PlannedStage, what: str, kind: str) -> Failure:
    message = (
        f"stage {planned.name!r} maps over {what}, which is of class {kind} and cannot be iterated: "
        "give a list or another iterable"
    )
    return Failure("TypeError", message, f"TypeError: {message}\n", ("TypeError", "Exception", "BaseException"))

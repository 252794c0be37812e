"""Runs a mapped stage: items in chunks sized by how long they take, streamed from one mapped stage to the next."""

import asyncio
from bisect import insort
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowtilla_executors import MISSING, Argument, Call, Failure, Items, Literal
from flowtilla_worker.engine.calls import Caller, Ended, begun_now, with_items
from flowtilla_worker.engine.value import Chunk, Parents, Value
from flowtilla_worker.plan.plan import PlannedStage

#: Seconds of work a chunk should hold: long beside the cost of a call, short beside what people wait for.
_CHUNK_SECONDS = 0.025

#: Seconds of work below which splitting a chunk gains nothing.
_WORTH_A_CALL = 0.002

#: A list of more items than this cannot be small as JSON.
_INLINE_ITEMS = 32 * 1024

#: Chunks in flight for each call that can run at once: one runs, one waits beside it.
_DEPTH = 2


@dataclass(frozen=True, slots=True)
class Piece:
    """Some consecutive items to map over.

    Args:
        order: sorts the pieces as their items are sorted.
        source: where the items are: a value at hand, or a handle in the cluster.
        indexes: each item's index in the whole map.
    """

    order: tuple[int, ...]
    source: Literal | Any
    indexes: Sequence[int]


class Stream:
    """Hands the chunks of a running mapped stage to those that map over it in turn."""

    def __init__(self) -> None:
        self.failed = False
        self._pieces: list[Piece] = []
        self._more = asyncio.Condition()
        self._closed = False

    async def put(self, chunk: Chunk) -> None:
        """Adds a finished chunk."""
        async with self._more:
            self._pieces.append(Piece(chunk.order, chunk.handle, chunk.indexes))
            self._more.notify_all()

    async def close(self, failed: bool) -> None:
        """Says that no chunk follows, and whether that is because the stage failed."""
        async with self._more:
            self._closed, self.failed = True, failed
            self._more.notify_all()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        position = 0
        while True:
            while position < len(self._pieces):
                yield self._pieces[position]
                position += 1
            async with self._more:
                if position == len(self._pieces):
                    if self._closed:
                        return
                    await self._more.wait()


@dataclass(slots=True)
class Mapped:
    """What came of a mapped stage.

    Args:
        chunks: the results, in order.
        failures: the items that failed, by index.
        total: how many items there were.
        retries: how many tries followed a failed one.
        artifacts: what the items stored.
        late: whether time was over before all items had ended.
    """

    chunks: list[Chunk] = field(default_factory=list)
    failures: dict[int, Failure] = field(default_factory=dict)
    total: int = 0
    retries: int = 0
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    late: bool = False

    @property
    def done(self) -> int:
        """How many items ended well."""
        return sum(len(chunk.indexes) for chunk in self.chunks)

    def value(self) -> Value:
        """Returns the list of results."""
        inline: Any = []
        for chunk in self.chunks:
            if chunk.inline is MISSING or len(inline) > _INLINE_ITEMS:
                inline = MISSING
                break
            inline += chunk.inline
        indexes = [index for chunk in self.chunks for index in chunk.indexes]
        return Value(None, tuple(self.chunks), inline, len(indexes), True, "list", indexes)


class StageMap:
    """Maps a stage over pieces of items.

    Args:
        caller: makes the calls.
        planned: the stage.
        call: its call, without items.
        parents: the handles its other arguments depend on.
        changed: called when items have ended.
    """

    def __init__(
        self, caller: Caller, planned: PlannedStage, call: Call, parents: Parents, changed: Callable[[Mapped], None]
    ) -> None:
        self.mapped = Mapped()
        self._caller = caller
        self._planned = planned
        self._call = call
        self._parents = tuple(parents.handles)
        self._changed = changed
        self._seconds: float | None = None
        self._width = max(1, int(caller.cpus // max(planned.resources.cpus or 1, 0.01)))
        self._room = asyncio.Semaphore(self._width * _DEPTH)

    async def run(self, pieces: AsyncIterator[Piece], stream: Stream) -> Mapped:
        """Runs all items of the pieces, each chunk's results going to `stream` as soon as they are there.

        After an item has failed for good, items behind it are not begun: the failure that is reported is that of the
        first item that fails, however many run at once. When the stage takes too long, all that run are stopped.
        """
        try:
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as group:
                async for piece in pieces:
                    self._start_clock(limit)
                    self.mapped.total += len(piece.indexes)
                    await self._spread(piece, stream, group)
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        except TimeoutError:
            if not limit.expired():
                raise
            self.mapped.late = True
        return self.mapped

    def _start_clock(self, limit: asyncio.Timeout) -> None:
        """Lets the stage's time begin with its first item: until then it waits for the stage that it maps over."""
        seconds = self._planned.options.stage_timeout
        if seconds is not None and limit.when() is None:
            limit.reschedule(asyncio.get_running_loop().time() + seconds)
            self._call = begun_now(self._call, seconds)

    async def _spread(self, piece: Piece, stream: Stream, group: asyncio.TaskGroup) -> None:
        """Begins the items of a piece, chunk by chunk, as room comes free."""
        start = 0
        while start < len(piece.indexes):
            await self._room.acquire()
            if self._hopeless(piece.indexes[start]):
                self._room.release()
                return
            stop = start + self._size(len(piece.indexes) - start)
            group.create_task(self._chunk(piece, start, stop, stream))
            start = stop

    def _hopeless(self, index: int) -> bool:
        if self._planned.options.allow_partial_failure or not self.mapped.failures:
            return False
        return index > min(self.mapped.failures)

    def _size(self, left: int) -> int:
        """Returns how many items the next chunk takes."""
        # Items with a timeout or retries of their own are calls of their own.
        alone = self._planned.options.timeout is not None or self._planned.retries.count
        if alone or self._seconds is None:
            return 1
        item = max(self._seconds, 1e-7)
        # Smaller towards the end, so that all ends together, but not so small that calls cost more than items.
        fair = max(-(-left // (self._width * _DEPTH)), int(_WORTH_A_CALL / item))
        return max(1, min(fair, int(_CHUNK_SECONDS / item)))

    async def _chunk(self, piece: Piece, start: int, stop: int, stream: Stream) -> None:
        try:
            ended = await self._run_items(piece, start, stop)
        finally:
            self._room.release()
        indexes = piece.indexes[start:stop]
        outcome = ended.outcome
        self.mapped.retries += ended.tries - 1
        failures = dict(outcome.item_failures)
        if outcome.failure is not None:
            failures = dict.fromkeys(indexes, outcome.failure)
        self.mapped.failures |= failures
        self.mapped.artifacts += outcome.artifacts
        if outcome.failure is None:
            self._seconds = outcome.busy / len(indexes)
            kept = [index for index in indexes if index not in failures] if failures else indexes
            chunk = Chunk((*piece.order, start), ended.handle, kept, outcome.value, outcome.size)
            insort(self.mapped.chunks, chunk, key=lambda one: one.order)
            await stream.put(chunk)
        self._changed(self.mapped)

    async def _run_items(self, piece: Piece, start: int, stop: int) -> Ended:
        parents = Parents(list(self._parents))
        indexes = piece.indexes[start:stop]
        source: Argument
        if isinstance(piece.source, Literal):
            # Only the window travels.
            source, stop, start = Literal(piece.source.value[start:stop]), stop - start, 0
        else:
            source = parents.parent(piece.source)
        items = Items(source, indexes, start, stop, self._planned.binding.item or 0)
        return await self._caller.run(with_items(self._call, items), parents.handles, self._planned.retries)

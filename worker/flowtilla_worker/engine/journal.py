"""What a run's attempt has to report: gathered as it happens, written a few times a second and at every commit."""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from types import MappingProxyType

from flowtilla.errors import LeaseLost
from flowtilla.logs import LogLine
from flowtilla.record import StageRecord
from flowtilla_worker.attempt import Attempt, Notes, for_dashboards
from flowtilla_worker.engine.halt import Halt, fault
from flowtilla_worker.engine.log import RunLog

#: Seconds between two reports of what is not a commit: progress and log lines.
_INTERVAL = 0.25

_NOTHING: Mapping[str, str] = MappingProxyType({})

#: How many stages the job's meta shows.
_SHOWN_STAGES = 50


class Journal:
    """Collects stage records and log lines of one attempt.

    Args:
        attempt: writes them.
        log: the run's log.
        total: how many stages the workflow has.
        halt: called when a write finds that the run was cancelled, or is another attempt's now; or when Redis refused
            one that nobody waits for.
        careful: whether to write that a stage begins before it does: should it kill the worker, it is known.
    """

    def __init__(self, attempt: Attempt, log: RunLog, total: int, halt: Callable[..., None], careful: bool) -> None:
        self.records: dict[str, StageRecord] = {}
        #: The stages that ended in an earlier attempt.
        self.ended_before: Collection[str] = ()
        self._halt = halt
        self._careful = careful
        self._attempt = attempt
        self._total = total
        self._ended = 0
        self._changed: set[str] = set()
        #: Committed values that wait to be written, as JSON.
        self._values: dict[str, str] = {}
        self._log = log
        self._timer: asyncio.TimerHandle | None = None
        self._report: asyncio.Task[None] | None = None
        self._pressing = False

    def note(self, record: StageRecord) -> None:
        """Takes a changed record; it is written soon, or with the next commit."""
        before = self.records.get(record.name)
        # Counted as it changes: a workflow may have thousands of stages, and each commit tells the progress.
        self._ended += record.state.ended - (before is not None and before.state.ended)
        self.records[record.name] = record
        self._changed.add(record.name)
        self._schedule()

    def log(self, lines: Sequence[LogLine]) -> None:
        """Takes lines; they are written soon, or with the next commit."""
        if lines:
            self._log.add(lines)
            self._schedule()

    def resume(self, records: Iterable[StageRecord]) -> None:
        """Takes the records of earlier attempts that still hold; they are written already."""
        for record in records:
            self.records[record.name] = record
            self._ended += record.state.ended

    async def commit(self, record: StageRecord, value: str | None) -> None:
        """Writes a stage's outcome, at once, with all that waits.

        Args:
            record: the stage's record.
            value: its value or where that is, as JSON; None when it is not kept.

        Raises:
            LeaseLost: the run is another attempt's now.
        """
        self._add(record, value)
        await self._write()

    def commit_soon(self, record: StageRecord, value: str | None) -> None:
        """Takes a stage's outcome as `commit` does, to be written as soon as the write before it has come back."""
        self._add(record, value)
        self._press()

    async def check(self) -> None:
        """Makes sure that the run is still this attempt's, as `Attempt.check` does."""
        await self._attempt.check()

    async def begin(self, record: StageRecord) -> None:
        """Takes the record of a stage that is about to begin.

        Raises:
            LeaseLost: the run is another attempt's now.
        """
        self.note(record)
        if self._careful:
            await self._write()

    def take(self, job: Mapping[str, str] = _NOTHING) -> Notes:
        """Returns all that waits to be written, with more fields of the job."""
        self._stop_timer()
        records = [self.records[name] for name in self._changed]
        self._changed.clear()
        values, self._values = self._values, {}
        lines, first = self._log.take()
        further = any(one.state.ended and one.name not in self.ended_before for one in records)
        return Notes(records, values, {"meta": self._meta(), **job}, lines, first, further)

    async def close(self) -> None:
        """Stops reporting and forgets what waits."""
        self._stop_timer()
        if self._report is not None:
            self._report.cancel()
            await asyncio.gather(self._report, return_exceptions=True)
        self._log.close()

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._due)

    def _due(self) -> None:
        self._timer = None
        self._press()

    def _add(self, record: StageRecord, value: str | None) -> None:
        self.note(record)
        if value is not None:
            self._values[record.name] = value

    def _press(self) -> None:
        """Has what waits written, by one write at a time: what comes while one is under way goes with the next."""
        self._pressing = True
        if self._report is None or self._report.done():
            self._report = asyncio.create_task(self._write_quietly(), name="flowtilla-report")

    async def _write_quietly(self) -> None:
        try:
            while self._pressing:
                self._pressing = False
                await self._write()
        except LeaseLost:
            pass  # the run is being stopped for it
        except Exception:
            self._halt(Halt.BROKE, fault())

    async def _write(self) -> None:
        try:
            if self._log.due:
                await self._attempt.check()
            kept = await self._log.keep()
            if await self._attempt.write(self.take(kept)):
                self._halt(Halt.CANCELLED)
        except LeaseLost:
            self._halt(Halt.LOST)
            raise

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _meta(self) -> str:
        """Returns what dashboards show of the run: progress, a table of its stages, the last log lines."""
        table = {record.name: _summary(record) for record in islice(self.records.values(), _SHOWN_STAGES)}
        meta = {
            "progress": f"{self._ended}/{self._total} stages",
            "stages": table,
            "log": [for_dashboards(str(line)) for line in self._log.recent],
        }
        return json.dumps(meta)


def _summary(record: StageRecord) -> str:
    words = [str(record.state)]
    if record.total is not None:
        words.append(f"{record.done}/{record.total}")
    if record.failed:
        words.append(f"{record.failed} failed")
    if record.started is not None:
        words.append(f"{(record.ended or time.time()) - record.started:.1f} s")
    return " ".join(words)

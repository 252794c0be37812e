"""What a run's attempt has to report: gathered as it happens, written a few times a second and at every commit."""

import asyncio
import json
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import IO

from flowtilla.errors import LeaseLost
from flowtilla.logs import LogLine
from flowtilla.record import StageRecord
from flowtilla_worker.attempt import Attempt, for_dashboards
from flowtilla_worker.engine.halt import Halt

#: Seconds between two reports of what is not a commit: progress and log lines.
_INTERVAL = 0.25

#: How many stages and log lines the job's meta shows.
_SHOWN_STAGES = 50
_SHOWN_LINES = 5

#: How many bytes of log one run holds in memory before they go to a temporary file.
_SPOOL = 256 * 1024


class Journal:
    """Collects stage records and log lines of one attempt.

    Args:
        attempt: writes them.
        total: how many stages the workflow has.
        halt: called when a write finds that the run was cancelled, or is another attempt's now.
        careful: whether to write that a stage begins before it does: should it kill the worker, it is known.
    """

    def __init__(self, attempt: Attempt, total: int, halt: Callable[[Halt], None], careful: bool) -> None:
        self.records: dict[str, StageRecord] = {}
        self._halt = halt
        self._careful = careful
        self._attempt = attempt
        self._total = total
        self._ended = 0
        self._changed: set[str] = set()
        self._lines: list[LogLine] = []
        self._recent: deque[LogLine] = deque(maxlen=_SHOWN_LINES)
        self._spool: IO[str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._report: asyncio.Task[None] | None = None

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
        if not lines:
            return
        if self._spool is None:
            self._spool = tempfile.SpooledTemporaryFile(_SPOOL, mode="w+", encoding="utf-8")  # noqa: SIM115
        self._spool.writelines(f"{line.to_json()}\n" for line in lines)
        self._lines += lines
        self._recent.extend(lines)
        self._schedule()

    def resume(self, records: Iterable[StageRecord]) -> None:
        """Takes the records of earlier attempts that still hold; they are written already."""
        for record in records:
            self.records[record.name] = record
            self._ended += record.state.ended

    def begin_with(self, lines: Sequence[str]) -> None:
        """Takes the lines, as JSON, that earlier attempts wrote, so that the whole log has them too."""
        if lines:
            self._spool = tempfile.SpooledTemporaryFile(_SPOOL, mode="w+", encoding="utf-8")  # noqa: SIM115
            self._spool.writelines(f"{line}\n" for line in lines)

    async def commit(self, record: StageRecord, value: str | None) -> None:
        """Writes a stage's outcome, at once, with all that waits.

        Args:
            record: the stage's record.
            value: its value or where that is, as JSON; None when it is not kept.

        Raises:
            LeaseLost: the run is another attempt's now.
        """
        self.note(record)
        await self._write({} if value is None else {record.name: value})

    async def begin(self, record: StageRecord) -> None:
        """Takes the record of a stage that is about to begin.

        Raises:
            LeaseLost: the run is another attempt's now.
        """
        self.note(record)
        if self._careful:
            await self._write({})

    def take(self) -> tuple[list[StageRecord], list[LogLine], dict[str, str]]:
        """Returns all that waits to be written: records, lines, fields of the job; for the run's last write."""
        self._stop_timer()
        records = [self.records[name] for name in self._changed]
        lines, self._lines = self._lines, []
        self._changed.clear()
        return records, lines, {"meta": self._meta()}

    def whole_log(self) -> str | None:
        """Returns every line of the log as JSON lines, or None when there is none."""
        if self._spool is None:
            return None
        self._spool.seek(0)
        return self._spool.read()

    async def close(self) -> None:
        """Stops reporting and forgets what waits."""
        self._stop_timer()
        if self._report is not None:
            self._report.cancel()
            await asyncio.gather(self._report, return_exceptions=True)
        if self._spool is not None:
            self._spool.close()

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._due)

    def _due(self) -> None:
        self._timer = None
        self._report = asyncio.create_task(self._write_quietly(), name="flowtilla-report")

    async def _write_quietly(self) -> None:
        with suppress(LeaseLost):
            await self._write({})

    async def _write(self, values: Mapping[str, str]) -> None:
        records, lines, job = self.take()
        try:
            if await self._attempt.write(stages=records, values=values, job=job, lines=lines):
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
            "log": [for_dashboards(str(line)) for line in self._recent],
        }
        return json.dumps(meta, ensure_ascii=False)


def _summary(record: StageRecord) -> str:
    words = [str(record.state)]
    if record.total is not None:
        words.append(f"{record.done}/{record.total}")
    if record.failed:
        words.append(f"{record.failed} failed")
    if record.started is not None:
        words.append(f"{(record.ended or time.time()) - record.started:.1f} s")
    return " ".join(words)

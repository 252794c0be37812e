"""The whole log of a run: Redis keeps its newest lines, a file the rest, and another attempt finds both."""

import asyncio
import json
import logging
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any

from flowtilla.errors import FlowtillaError
from flowtilla.logs import LogLine

_log = logging.getLogger("flowtilla.worker")

#: After so many lines what there is goes to storage, long before Redis forgets the first of them.
PART = 5_000

#: How many bytes of log one run holds in memory before they go to a temporary file.
_SPOOL = 256 * 1024

#: How many of the last lines the job's meta shows.
_SHOWN = 5


class RunLog:
    """The log of one run. Its lines are numbered from 1, over all attempts.

    Args:
        store: stores a text and returns the reference to it; may block.
    """

    def __init__(self, store: Callable[[str], dict[str, Any]]) -> None:
        self.recent: deque[LogLine] = deque(maxlen=_SHOWN)
        self._store = store
        self._spool: IO[str] | None = None
        self._count = 0
        self._waiting: list[LogLine] = []
        self._parts: list[dict[str, Any]] = []
        # Up to where, in lines and in the spool, parts hold the log.
        self._kept, self._offset = 0, 0
        self._keeping = False

    def resume(self, text: str, tail: Iterable[tuple[int, str]], parts: Sequence[dict[str, Any]]) -> None:
        """Takes what earlier attempts left.

        Args:
            text: what the parts hold.
            tail: number and JSON of the lines that came after.
            parts: references to the parts, as `keep` made them.
        """
        self._write(text)
        self._parts = list(parts)
        self._count = self._kept = self._parts[-1]["until"] if self._parts else 0
        self._offset = self._file.tell()
        for number, line in tail:
            self._write(f"{line}\n")
            self._count = number

    def add(self, lines: Sequence[LogLine]) -> None:
        """Adds lines."""
        self._write("".join(f"{line.to_json()}\n" for line in lines))
        self._count += len(lines)
        self._waiting += lines
        self.recent.extend(lines)

    def take(self) -> tuple[list[LogLine], int]:
        """Returns the lines that wait to be written to Redis, and the number of the first."""
        lines, self._waiting = self._waiting, []
        return lines, self._count - len(lines) + 1

    @property
    def due(self) -> bool:
        """Whether there is so much that some of it must be kept."""
        return self._count - self._kept >= PART and not self._keeping

    async def keep(self) -> dict[str, str]:
        """Stores what Redis would forget soon, and returns the field of the job that refers to it, if there is any."""
        if not self.due:
            return {}
        self._keeping = True
        try:
            self._file.seek(self._offset)
            text, until, end = self._file.read(), self._count, self._file.tell()
            record = await asyncio.to_thread(self._store, text)
        except FlowtillaError as error:
            _log.warning("a part of a log could not be stored, it is tried again: %s", error)
            return {}
        finally:
            self._keeping = False
        self._kept, self._offset = until, end
        self._parts.append({"record": record, "until": until})
        return {"log_parts": json.dumps(self._parts)}

    def part(self, record: dict[str, Any]) -> dict[str, Any]:
        """Returns the part that a reference to the text so far makes."""
        return {"record": record, "until": self._count}

    def whole(self) -> str | None:
        """Returns the log as JSON lines, or None when there is none."""
        if self._spool is None:
            return None
        self._spool.seek(0)
        return self._spool.read()

    def close(self) -> None:
        """Forgets it."""
        if self._spool is not None:
            self._spool.close()

    @property
    def _file(self) -> IO[str]:
        if self._spool is None:
            self._spool = tempfile.SpooledTemporaryFile(_SPOOL, mode="w+", encoding="utf-8")  # noqa: SIM115
        return self._spool

    def _write(self, text: str) -> None:
        # Reading has moved the place where the next text would go.
        self._file.seek(0, 2)
        self._file.write(text)

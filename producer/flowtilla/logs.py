"""One line of a run's log, and how it is written down."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache

from pydantic import TypeAdapter

from flowtilla.untrusted import Moment, from_json


@dataclass(frozen=True)
class LogLine:
    """One line that a stage logged or printed, attributed.

    Args:
        run_id, stage, item, attempt: what wrote it; `item` is None for simple stages.
        time: seconds since the epoch.
        host: the machine it was written on.
        source: `stdout`, `stderr`, or the logger's name.
        level: the level's name; `INFO` for stdout and `WARNING` for stderr.
        message: the line, without its newline.
    """

    run_id: str
    stage: str
    item: int | None
    attempt: int
    time: Moment
    host: str
    source: str
    level: str
    message: str

    def to_json(self) -> str:
        """Returns the line as one line of JSON; the run's id is left out, for its log is the run's own."""
        fields = asdict(self)
        del fields["run_id"]
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, run_id: str, text: str | bytes) -> "LogLine":
        """Returns the line that `to_json` wrote.

        Raises:
            ValueError, TypeError: it did not.
        """
        return _checked().validate_python({**from_json(text), "run_id": run_id})

    def __str__(self) -> str:
        clock = datetime.fromtimestamp(self.time).strftime("%H:%M:%S.%f")[:-3]
        where = (self.stage or self.source) if self.item is None else f"{self.stage}[{self.item}]"
        level = "" if self.level == "INFO" else f"{self.level}: "
        return f"{clock} {where} | {level}{self.message}"


@cache
def _checked() -> TypeAdapter[LogLine]:
    return TypeAdapter(LogLine)

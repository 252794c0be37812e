"""How the worker's own log looks."""

import json
import logging
from typing import Any

from flowtilla.settings import LoggingSettings


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def configure_logging(settings: LoggingSettings) -> None:
    """Sends this process's log to stderr, in the format and from the level that the settings name."""
    handler = logging.StreamHandler()
    if settings.format == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    # Other libraries' debug lines would show what they send: requests, with who asks.
    logging.basicConfig(level=max(logging.INFO, logging.getLevelName(settings.level)), handlers=[handler], force=True)
    logging.getLogger("flowtilla").setLevel(settings.level)

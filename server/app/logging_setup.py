"""Set-up of logging: levels, the formats `text` and `json`, and a filter for Tornado's own lines."""

from __future__ import annotations

import json
import logging

from stormcellar.app.standard_error import StandardErrorHandler
from stormcellar.timestamps import iso_utc


class RedactMalformed(logging.Filter):
    """Remove the details from Tornado's line on a malformed message: they can be a whole Cookie header."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the line, without what the client sent."""
        if isinstance(record.msg, str) and record.msg.startswith("Malformed HTTP message"):
            record.msg, record.args, record.exc_info = "Malformed HTTP message (details withheld)", (), None
        return True


def _time(record: logging.LogRecord) -> str:
    return iso_utc(int(record.created * 1000), timespec="milliseconds")


class TextFormatter(logging.Formatter):
    """Time in UTC, level, logger, message; a traceback on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the time in UTC."""
        return _time(record)


class JSONFormatter(logging.Formatter):
    """One object per line: `time`, `level`, `logger`, `message`, the record's `fields`, and `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


_FORMATTERS = {"text": TextFormatter, "json": JSONFormatter}


def set_up(level: str, form: str = "text") -> None:
    """Log to standard error as `text` or `json`, without waiting for its reader. Call it once per process.

    Levels below INFO apply to Stormcellar's loggers only: PyMongo logs at DEBUG the documents it stores.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = StandardErrorHandler()
    handler.setFormatter(_FORMATTERS[form]())
    logging.basicConfig(level=max(number, logging.INFO), handlers=[handler])
    logging.getLogger("stormcellar").setLevel(number)
    redact()


def redact() -> None:
    """Filter Tornado's own log lines; idempotent."""
    general = logging.getLogger("tornado.general")
    if not any(isinstance(each, RedactMalformed) for each in general.filters):
        general.addFilter(RedactMalformed())

"""What is logged, and what must not be: no query string, no cookie, no password, nothing a session holds."""

from __future__ import annotations

import json
import logging

from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, RequestHandler

from stormcellar.errors import Busy, InsecureTransport, PasswordRefused, SessionError, Throttled
from stormcellar.stores import StoreUnavailable
from stormcellar.timestamps import iso_utc

access = logging.getLogger("stormcellar.access")
log = logging.getLogger("stormcellar.http")

_LONGEST_PATH = 200
_LONGEST_METHOD = 16


class RedactMalformed(logging.Filter):
    """Takes the details out of Tornado's line on a malformed message: they can be a whole Cookie header."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the line, without what the client sent."""
        if isinstance(record.msg, str) and record.msg.startswith("Malformed HTTP message"):
            record.msg, record.args, record.exc_info = "Malformed HTTP message (details withheld)", (), None
        return True


def _time(record: logging.LogRecord) -> str:
    return iso_utc(int(record.created * 1000), timespec="milliseconds")


class TextFormatter(logging.Formatter):
    """Time in UTC, level, logger, message; a trace on lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the time in UTC."""
        return _time(record)


class JSONFormatter(logging.Formatter):
    """One object a line: `time`, `level`, `logger`, `message`, the record's `fields`, and `exception`."""

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
    """Send everything to standard error, as `text` or as `json`; once a process.

    Below INFO only what is ours is logged: PyMongo writes out at DEBUG what it stores.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATTERS[form]())
    logging.basicConfig(level=max(number, logging.INFO), handlers=[handler])
    logging.getLogger("stormcellar").setLevel(number)
    redact()


def redact() -> None:
    """Make Tornado's own log lines fit to keep; idempotent."""
    general = logging.getLogger("tornado.general")
    if not any(isinstance(each, RedactMalformed) for each in general.filters):
        general.addFilter(RedactMalformed())


def log_request(handler: RequestHandler) -> None:
    """Write one access line: who, what, outcome."""
    request = handler.request
    fields = {
        "address": getattr(handler, "client_address", lambda: request.remote_ip)(),
        "method": _method(request),
        "path": _path(request),
        "status": handler.get_status(),
        "duration_ms": round(1000 * request.request_time(), 1),
    }
    access.info("%s %s %s %d %.1fms", *fields.values(), extra={"fields": fields})


def log_problem(request: HTTPServerRequest, error: BaseException | None) -> None:
    """Write why a request was not answered as asked; a trace only where nobody foresaw it."""
    match error:
        case HTTPError():
            log.info("%s: %d", summary(request), error.status_code)
        case SessionError() | Throttled() | PasswordRefused() if not isinstance(error, InsecureTransport):
            log.info("%s: %s", summary(request), type(error).__name__)
        case SessionError() | StoreUnavailable() | Busy():
            cause = f" ({type(error.__cause__).__name__})" if error.__cause__ else ""
            log.warning("%s: %s%s", summary(request), type(error).__name__, cause)
        case _:
            log.error("%s: uncaught", summary(request), exc_info=error)


def summary(request: HTTPServerRequest) -> str:
    """Return the method, and the path without its query, cut to what is worth a log line."""
    return f"{_method(request)} {_path(request)}"


def _method(request: HTTPServerRequest) -> str:
    return (request.method or "")[:_LONGEST_METHOD]


def _path(request: HTTPServerRequest) -> str:
    return request.path[:_LONGEST_PATH].encode("unicode_escape").decode()

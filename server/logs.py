"""What is logged, and what must not be: no query string, no cookie, no password, nothing a session holds."""

from __future__ import annotations

import logging

from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, RequestHandler

from server.errors import Busy, InsecureTransport, SessionError
from stores import StoreUnavailable

access = logging.getLogger("stormcellar.access")
log = logging.getLogger("stormcellar.http")

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_LONGEST_PATH = 200
_LONGEST_METHOD = 16


class RedactMalformed(logging.Filter):
    """Takes the details out of Tornado's line on a malformed message: they can be a whole Cookie header."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the line, without what the client sent."""
        if isinstance(record.msg, str) and record.msg.startswith("Malformed HTTP message"):
            record.msg, record.args, record.exc_info = "Malformed HTTP message (details withheld)", (), None
        return True


def set_up(level: str) -> None:
    """Send everything to standard error; once a process.

    Below INFO only what is ours is logged: PyMongo writes out at DEBUG what it stores.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(number, logging.INFO), format=_FORMAT)
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
    address = getattr(handler, "client_address", lambda: request.remote_ip)()
    milliseconds = 1000 * request.request_time()
    access.info("%s %s %d %.1fms", address, summary(request), handler.get_status(), milliseconds)


def log_problem(request: HTTPServerRequest, error: BaseException | None) -> None:
    """Write why a request was not answered as asked; a trace only where nobody foresaw it."""
    match error:
        case HTTPError():
            log.info("%s: %d", summary(request), error.status_code)
        case SessionError() if not isinstance(error, InsecureTransport):
            log.info("%s: %s", summary(request), type(error).__name__)
        case SessionError() | StoreUnavailable() | Busy():
            cause = f" ({type(error.__cause__).__name__})" if error.__cause__ else ""
            log.warning("%s: %s%s", summary(request), type(error).__name__, cause)
        case _:
            log.error("%s: uncaught", summary(request), exc_info=error)


def summary(request: HTTPServerRequest) -> str:
    """Return the method, and the path without its query, cut to what is worth a log line."""
    path = request.path[:_LONGEST_PATH].encode("unicode_escape").decode()
    return f"{(request.method or '')[:_LONGEST_METHOD]} {path}"

"""The log lines about requests. None contains a query string, cookie, password or session value."""

from __future__ import annotations

import logging

from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, RequestHandler

from stormcellar.errors import Busy, InsecureTransport, PasswordRefused, SessionError, Throttled
from stormcellar.stores import StoreUnavailable
from stormcellar.stores.errors import log_text

access = logging.getLogger("stormcellar.access")
log = logging.getLogger("stormcellar.http")

_LONGEST_PATH = 200
_LONGEST_METHOD = 16


def log_request(handler: RequestHandler) -> None:
    """Log one access line: client, method, path, status, duration."""
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
    """Log why a request failed; with a traceback only for an unexpected error."""
    match error:
        case HTTPError():
            log.info("%s: %d", summary(request), error.status_code)
        case SessionError() | Throttled() | PasswordRefused() if not isinstance(error, InsecureTransport):
            log.info("%s: %s", summary(request), type(error).__name__)
        case StoreUnavailable():
            log.warning("%s: %s", summary(request), log_text(error))
        case SessionError() | Busy():
            cause = f" ({type(error.__cause__).__name__})" if error.__cause__ else ""
            log.warning("%s: %s%s", summary(request), type(error).__name__, cause)
        case _:
            log.error("%s: uncaught", summary(request), exc_info=error)


def summary(request: HTTPServerRequest) -> str:
    """Return the method and the path without its query, both truncated."""
    return f"{_method(request)} {_path(request)}"


def _method(request: HTTPServerRequest) -> str:
    return (request.method or "")[:_LONGEST_METHOD]


def _path(request: HTTPServerRequest) -> str:
    return request.path[:_LONGEST_PATH].encode("unicode_escape").decode()

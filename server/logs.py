"""What is logged, and what must not be: no query string, no cookie."""

from __future__ import annotations

import logging

from tornado.web import RequestHandler

access = logging.getLogger("stormcellar.access")

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class RedactMalformed(logging.Filter):
    """Takes the details out of Tornado's line on a malformed message: they can be a whole Cookie header."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the line, without what the client sent."""
        if isinstance(record.msg, str) and record.msg.startswith("Malformed HTTP message"):
            record.msg, record.args, record.exc_info = "Malformed HTTP message (details withheld)", (), None
        return True


def set_up(level: str) -> None:
    """Send everything to standard error; once a process."""
    logging.basicConfig(level=level.upper(), format=_FORMAT)
    redact()


def redact() -> None:
    """Make Tornado's own log lines fit to keep; idempotent."""
    general = logging.getLogger("tornado.general")
    if not any(isinstance(each, RedactMalformed) for each in general.filters):
        general.addFilter(RedactMalformed())


def log_request(handler: RequestHandler) -> None:
    """Write one access line: who, what, outcome; the path without its query, cut to 200 characters."""
    request = handler.request
    address = getattr(handler, "client_address", lambda: request.remote_ip)()
    milliseconds = 1000 * request.request_time()
    path = request.path[:200].encode("unicode_escape").decode()
    access.info("%s %s %s %d %.1fms", address, request.method, path, handler.get_status(), milliseconds)

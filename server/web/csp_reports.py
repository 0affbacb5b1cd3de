"""`CspReports`: the address to which browsers report what a content security policy forbids."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from tornado.web import HTTPError, RequestHandler, stream_request_body

log = logging.getLogger("stormcellar.csp")

MAX_BYTES = 64 * 1024
"""Of one request. A browser may send several reports together."""
MOST_A_MINUTE = 30
"""Lines of the log: anybody can send reports."""
TYPES = ("application/csp-report", "application/reports+json", "application/json")


class ReportLog:
    """Writes at most `MOST_A_MINUTE` lines a minute, and how many were left out.

    Args:
        clock: Seconds that only go forward.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._minute = 0
        self._count = 0

    def write(self, line: str) -> None:
        """Log *line*, unless there were too many in this minute."""
        minute = int(self._clock() // 60)
        if minute != self._minute:
            if self._count > MOST_A_MINUTE:
                log.warning("%d reports were left out", self._count - MOST_A_MINUTE)
            self._minute, self._count = minute, 0
        self._count += 1
        if self._count <= MOST_A_MINUTE:
            log.warning("%s", line)


@stream_request_body
class CspReports(RequestHandler):
    """`POST` of reports, in either form of CSP Level 3 (5.3 and 5.5)."""

    def initialize(self, reports: ReportLog) -> None:
        """Take the log of the application."""
        self._reports = reports
        self._body = b""

    def check_xsrf_cookie(self) -> None:
        """Browsers send no form token with a report, and it changes nothing."""

    def prepare(self) -> None:
        """Refuse other types, and large bodies before they are read."""
        if self.request.method == "POST":
            kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if kind not in TYPES:
                raise HTTPError(415)
            if int(self.request.headers.get("Content-Length", 0)) > MAX_BYTES:
                raise HTTPError(413)

    def data_received(self, chunk: bytes) -> None:
        """Keep the body, which may have no Content-Length."""
        if len(self._body) <= MAX_BYTES:
            self._body += chunk

    def post(self) -> None:
        """Log each report, and answer 204."""
        if len(self._body) > MAX_BYTES:
            raise HTTPError(413)
        try:
            found = list(_lines(json.loads(self._body)))
        except (ValueError, LookupError, RecursionError, TypeError, AttributeError):
            raise HTTPError(400) from None
        for line in found:
            self._reports.write(line)
        self.set_status(204)


def _lines(content: Any) -> Iterator[str]:
    """Return a line for each report in *content*."""
    if isinstance(content, dict):
        report = content.get("csp-report", content)
        yield _line(report, "document-uri", "blocked-uri", report.get("violated-directive"))
        return
    for each in content:
        if each.get("type") == "csp-violation":
            yield _line(each["body"], "documentURL", "blockedURL", None)


def _line(report: dict[str, Any], page: str, blocked: str, directive: Any) -> str:
    directive = report.get("effective-directive") or report.get("effectiveDirective") or directive
    return (
        f"the page {_place(report.get(page))} may not use {_place(report.get(blocked))} ({_plain(directive)})"
    )


def _place(url: Any) -> str:
    """Return *url* without what may be secret: user, query and fragment."""
    parts = urlsplit(url if isinstance(url, str) else "")
    host = parts.netloc.rpartition("@")[2]
    return _plain(f"{parts.scheme}://{host}{parts.path}" if host else parts.scheme or parts.path)


def _plain(text: Any) -> str:
    """Return at most 200 printable characters of *text*, so that it cannot forge a line of the log."""
    shown = "".join(each if each.isprintable() else "?" for each in str(text)[:200])
    return shown or "unknown"

"""The style sheet and the icon: cacheable, and as silent about the server as every other answer."""

from __future__ import annotations

import datetime
from types import TracebackType
from typing import Any

from tornado.web import StaticFileHandler

from server import logs
from server.handlers.problems import WORDS, Problem

HOUR_S = 3600
YEAR_S = 365 * 24 * HOUR_S


class Static(StaticFileHandler):
    """`GET /static/…`."""

    def set_default_headers(self) -> None:
        """Set the headers that fit a static file."""
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")

    def parse_url_path(self, url_path: str) -> str:
        """Return the path of the file; a NUL in it would be an error of the operating system."""
        if "\0" in url_path:
            raise Problem(404)
        return super().parse_url_path(url_path)

    def get_cache_time(self, path: str, modified: datetime.datetime | None, mime_type: str) -> int:
        """Return the seconds to keep it: long where the URL holds its version, as `static_url` makes it."""
        return YEAR_S if "v" in self.request.query_arguments else HOUR_S

    def check_xsrf_cookie(self) -> None:
        """Refuse whatever is neither GET nor HEAD; no form leads here."""
        raise Problem(405)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer in a line of text."""
        if status_code == 405:
            self.set_header("Allow", "GET, HEAD")
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        code = "method_not_allowed" if status_code == 405 else "not_found"
        self.finish(WORDS[code].message + "\n")

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log without the query string."""
        logs.log_problem(self.request, value)

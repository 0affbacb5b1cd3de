"""The static files: cacheable, with errors that reveal nothing about the server."""

from __future__ import annotations

import datetime
from typing import Any

from tornado.web import StaticFileHandler

from stormcellar.app.edge import Edge, EdgeHandler
from stormcellar.app.error_texts import TEXTS, Problem, describe

HOUR_S = 3600
YEAR_S = 365 * 24 * HOUR_S


class Static(EdgeHandler, StaticFileHandler):
    """`GET /static/…`."""

    def initialize(self, path: str, edge: Edge) -> None:  # type: ignore[override]
        """Take the folder of the files, and the rules for requests."""
        super().initialize(path)
        self.receive(edge)

    def prepare(self) -> None:
        """Refuse requests that the edge does not allow."""
        self.enforce_edge()

    def parse_url_path(self, url_path: str) -> str:
        """Return the path of the file; 404 for a NUL, which the operating system does not accept."""
        if "\0" in url_path:
            raise Problem(404)
        return super().parse_url_path(url_path)

    def get_cache_time(self, path: str, modified: datetime.datetime | None, mime_type: str) -> int:
        """Return the seconds to cache a file: a year if its URL has a version (`static_url`)."""
        return YEAR_S if "v" in self.request.query_arguments else HOUR_S

    def check_xsrf_cookie(self) -> None:
        """Refuse every method but GET and HEAD: no form is sent here."""
        self.enforce_edge()
        raise Problem(405)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with a line of text; a path outside the folder looks like a missing file."""
        if status_code == 405:
            self.set_header("Allow", "GET, HEAD")
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        code, message = describe(status_code, kwargs["exc_info"][1] if "exc_info" in kwargs else None)
        self.finish((TEXTS["not_found"].message if code == "forbidden" else message) + "\n")

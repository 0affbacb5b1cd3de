"""The static files: cacheable, with errors that reveal nothing about the server."""

from __future__ import annotations

import datetime
import mimetypes
from functools import cache
from pathlib import Path
from typing import Any

from tornado.web import StaticFileHandler

from stormcellar.app.edge import Edge, EdgeHandler
from stormcellar.app.error_texts import TEXTS, Problem, describe

HOUR_S = 3600
YEAR_S = 365 * 24 * HOUR_S


@cache
def _content(path: str) -> bytes:
    return Path(path).read_bytes()


class Static(EdgeHandler, StaticFileHandler):
    """`GET /static/…`."""

    def initialize(self, path: str, edge: Edge) -> None:  # type: ignore[override]
        """Take the folder of the files, and the rules for requests."""
        super().initialize(path)
        self.receive(edge)

    @classmethod
    def read_all(cls, folder: Path) -> None:
        """Read every file of *folder* now, so that no request needs a file descriptor."""
        # Else the first request reads the system's table of types.
        mimetypes.init()
        for path in folder.iterdir():
            cls.get_version({"static_path": str(folder)}, path.name)

    @classmethod
    def get_content(cls, abspath: str, start: int | None = None, end: int | None = None) -> bytes:  # type: ignore[override]
        """Return the bytes of a file, or a part of them, as they were when the file was first read."""
        return _content(abspath)[start:end]

    def get_content_size(self) -> int:
        """Return the size of the content that was read, even if the file has changed."""
        assert self.absolute_path is not None
        return len(_content(self.absolute_path))

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

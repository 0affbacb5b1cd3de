"""`Response`: what a test client received."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tornado.httputil import HTTPHeaders


@dataclass(frozen=True, slots=True, repr=False)
class Response:
    """The response to a request, with the names of Tornado's `HTTPResponse`."""

    code: int
    """The HTTP status."""
    reason: str
    """The text of the status, such as `Not Found`."""
    headers: HTTPHeaders
    """Case-insensitive; `get_list` returns every value of a name."""
    body: bytes
    """As received; see `text` and `json`."""
    method: str
    """Of the request that was answered: the last one, if redirects were followed."""
    path: str
    """The path and query of that request."""
    history: tuple[Response, ...] = ()
    """The redirects that led here, oldest first."""

    @property
    def text(self) -> str:
        """The body, decoded as UTF-8."""
        return self.body.decode(errors="replace")

    @property
    def location(self) -> str | None:
        """Where a redirect leads: its Location header."""
        return self.headers.get("Location")

    def json(self) -> Any:
        """Return the decoded JSON of the body.

        Raises:
            ValueError: The body is not JSON.
        """
        try:
            return json.loads(self.body)
        except ValueError as exc:
            kind = self.headers.get("Content-Type", "no Content-Type")
            raise ValueError(f"the body of {self!r} is not JSON: {kind}, {len(self.body)} bytes") from exc

    def __repr__(self) -> str:
        return f"<Response {self.code} to {self.method} {self.path.partition('?')[0]}>"

"""`Sender`: sends what a browser sends, and keeps the cookies of each response."""

from __future__ import annotations

import warnings
from typing import Any
from urllib.parse import urlsplit

from tornado.httputil import HTTPHeaders

from stormcellar.testing.browser_session import BrowserSession
from stormcellar.testing.connection import Connection
from stormcellar.testing.cookies import CookieJar, CookieRefused, CookieRefusedWarning
from stormcellar.testing.requests import REDIRECTS, SAFE_METHODS, Fields, Headers, encoded, path_of
from stormcellar.testing.response import Response

MOST_REDIRECTS = 10


class Sender:
    """Sends requests over *connection* with the *cookies* and the form tokens of *session*."""

    def __init__(self, connection: Connection, cookies: CookieJar, session: BrowserSession) -> None:
        self._connection = connection
        self._cookies = cookies
        self._session = session

    async def send(
        self,
        method: str,
        path: str,
        data: Fields | None = None,
        *,
        json: Any = None,
        body: bytes | str | None = None,
        headers: Headers | None = None,
        follow_redirects: bool = False,
        form_token: bool = True,
    ) -> Response:
        """See `Client.request`."""
        content, kind = encoded(data, json, body)
        history: list[Response] = []
        while len(history) <= MOST_REDIRECTS:
            sent = self.headers(method, path, {**kind, **(headers or {})}, form_token=form_token)
            received = await self._connection.fetch(method, path, headers=sent, body=content)
            self.keep(received.headers, path)
            response = Response(
                received.code,
                received.reason,
                received.headers,
                received.body,
                method,
                path,
                history=tuple(history),
            )
            is_redirect = response.code in REDIRECTS and response.location is not None
            target = self.path_of(response.location or "", path) if follow_redirects and is_redirect else None
            if target is None:
                return response
            history.append(response)
            path = target
            if (response.code == 303 and method != "HEAD") or (response.code < 303 and method == "POST"):
                method, content, kind = "GET", None, {}
        raise ValueError(f"more than {MOST_REDIRECTS} redirects, the last one to {path.partition('?')[0]}")

    def headers(self, method: str, path: str, given: Headers, *, form_token: bool = False) -> HTTPHeaders:
        """Return the headers of a request: those of a browser, replaced by *given*.

        Raises:
            ValueError: *path* does not begin with `/`.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        if not path.startswith("/"):
            raise ValueError("a path begins with '/': it is a path of the application under test")
        self._connection.require_loop()
        headers = HTTPHeaders({"Host": self._connection.netloc})
        if method not in SAFE_METHODS:
            headers["Origin"] = self._connection.origin
            if form_token:
                headers["X-Xsrftoken"] = self._session.form_token()
        if cookies := self._cookies.header(urlsplit(path).path):
            headers["Cookie"] = cookies
        for name, value in given.items():
            headers.pop(name, None)
            if value is not None:
                headers[name] = value
        return headers

    def keep(self, headers: HTTPHeaders | None, path: str) -> None:
        """Store the cookies of a response to a request for *path*; warn of those that browsers refuse."""
        for line in headers.get_list("Set-Cookie") if headers is not None else ():
            try:
                self._cookies.store(line, path=urlsplit(path).path)
            except CookieRefused as exc:
                warnings.warn(str(exc), CookieRefusedWarning, stacklevel=4)

    def path_of(self, target: str, path: str) -> str | None:
        """Return the path and query of *target* on the page *path*; None if it is on another site."""
        netlocs = (self._connection.netloc, urlsplit(self._connection.base_url).netloc)
        return path_of(target, base=self._connection.origin + path, netlocs=netlocs)

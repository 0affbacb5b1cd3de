"""A browser that knows what it was told, and compares every answer with that."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPResponse

from tests.faults.journal import Journal

JSON = "application/json"
SESSIONS = ("id", "__Host-id")
"""The names of the session cookie over plain HTTP and behind a proxy."""


class SessionOver(Exception):
    """The server does not know this session any more."""


class Failed(Exception):
    """No answer, or one that says that the server could not do it."""


class Answer(NamedTuple):
    """The status and the JSON object of a response."""

    status: int
    body: dict[str, Any]


class Browser:
    """One browser of one user.

    Args:
        base: The server's URL.
        patience_s: How long a request may take.
    """

    def __init__(self, http: AsyncHTTPClient, base: str, journal: Journal, *, patience_s: float) -> None:
        self.journal = journal
        self.user: str | None = None
        """Who the server said that this is."""
        self.is_in_doubt = False
        """Whether a request that ends the session, or rotates its ID, had no answer."""
        self._http = http
        self._base = base
        self._patience_s = patience_s
        self._cookies: dict[str, str] = {}
        self._written: dict[str, object] = {}
        self._unanswered: dict[str, object] = {}
        self._counted = self._uncertain_counts = 0

    @property
    def session_cookie(self) -> str | None:
        """The session cookie, as the header sends it."""
        return next((f"{name}={self._cookies[name]}" for name in SESSIONS if name in self._cookies), None)

    def begin(self, user: str | None) -> None:
        """Begin a session of *user* that holds nothing."""
        self.user, self.is_in_doubt = user, False
        self._written, self._unanswered = {}, {}
        self._counted = self._uncertain_counts = 0

    async def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """Send one request with the cookies, and keep those of the answer.

        Raises:
            Failed: No answer, or a status of 429, or of 500 and above.
        """
        response = await self._fetch(method, path, body, self._cookies)
        self._keep(response)
        return Answer(response.code, json.loads(response.body) if response.body else {})

    async def is_accepted(self, cookie: str) -> tuple[bool, bool]:
        """Whether a request with this session cookie alone is somebody's, and whether it shows data."""
        response = await self._fetch("GET", "/session", None, dict([cookie.split("=", 1)]))
        shown = json.loads(response.body)
        return shown["user"] is not None, bool(shown["data"])

    async def write(self, key: str, value: object) -> None:
        """Write a key that was not written before, and check the answer."""
        self._unanswered[key] = value
        answer = await self.send("PATCH", "/session", {key: value})
        self._check_is_there(answer)
        self._written[key] = value
        self._check(answer.body)

    async def count(self) -> None:
        """Add one to a counter."""
        self._uncertain_counts += 1
        answer = await self.send("POST", "/session/increment", {"key": "count", "by": 1})
        self._check_is_there(answer)
        self._uncertain_counts -= 1
        self._counted += 1
        self._check_count(answer.body["value"])

    async def read(self) -> None:
        """Read the session, and check who it is and what it holds."""
        answer = await self.send("GET", "/session")
        self._check_is_there(answer)
        self._check(answer.body)

    def over(self) -> SessionOver:
        """Record that the session is not there, and return the exception that says so."""
        if self.is_in_doubt:
            self.journal.in_doubt += 1
        elif self.user is not None:
            self.journal.signed_out.append(f"{self.user}")
        elif self._written:
            self.journal.lost.append(f"all that a visitor wrote: {len(self._written)} keys")
        return SessionOver()

    def _check_is_there(self, answer: Answer) -> None:
        has_session = self.user is not None or self._written or self.is_in_doubt
        if answer.status in (401, 409) and has_session:
            raise self.over()
        if answer.status != 200:
            raise AssertionError(f"unexpected answer {answer}")

    def _check(self, shown: dict[str, Any]) -> None:
        """Compare the session that an answer shows with what this browser was told.

        Raises:
            SessionOver: It is nobody's.
        """
        user, data = shown["user"], dict(shown["data"])
        if user not in (None, self.user):
            self.journal.somebody_else.append(f"{user} instead of {self.user}")
        if user != self.user or (user is None and self._written and not data):
            raise self.over()
        self._check_count(data.pop("count", 0))
        for key, value in list(self._written.items()):
            if data.get(key) != value:
                self.journal.lost.append(f"{self.user}: {key}")
                # Told once. It may appear later, if another node has it.
                self._unanswered[key] = self._written.pop(key)
        for key in data.keys() - self._written.keys() - self._unanswered.keys():
            self.journal.somebody_else.append(f"{self.user} never wrote {key}")

    def _check_count(self, count: int) -> None:
        least, most = self._counted, self._counted + self._uncertain_counts
        if not least <= count <= most:
            self.journal.lost.append(f"{self.user}: a count of {count} instead of {least} to {most}")
            self._counted = count

    async def _fetch(
        self, method: str, path: str, body: dict[str, Any] | None, cookies: dict[str, str]
    ) -> HTTPResponse:
        request = self.journal.begin()
        try:
            response = await self._http.fetch(
                self._base + path,
                method=method,
                body=None if method == "GET" else json.dumps(body or {}),
                headers={
                    "Accept": JSON,
                    "Content-Type": JSON,
                    "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
                },
                connect_timeout=self._patience_s,
                request_timeout=self._patience_s,
                follow_redirects=False,
                raise_error=False,
            )
        except (OSError, HTTPClientError):
            response = None
        except asyncio.CancelledError:
            self.journal.pending.pop(request)
            raise
        if response is None or response.code == 599:
            self.journal.end(request, "no answer")
            raise Failed(f"{method} {path}: no answer")
        if response.code == 429 or response.code >= 500:
            self.journal.end(request, str(response.code))
            raise Failed(f"{method} {path}: {response.code} {response.body[:80]!r}")
        self.journal.end(request, None)
        return response

    def _keep(self, response: HTTPResponse) -> None:
        for header in response.headers.get_list("Set-Cookie"):
            pair = header.partition(";")[0]
            name, _, value = pair.partition("=")
            if value.strip('"'):
                self._cookies[name] = value
            else:
                self._cookies.pop(name, None)

"""One client, one request at a time: it begins the sessions, and looks at what is answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: str
    cookies: tuple[str, ...]
    """Of each Set-Cookie line, `name=value`."""

    @property
    def said(self) -> tuple[int, str]:
        """Status and body."""
        return self.status, self.body


class Visitor:
    """Asks over one connection, which it opens again if the server closed it."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection

    def get(self, path: str, cookie: str | None = None) -> Answer:
        """Ask for *path*, with *cookie* as the whole Cookie header."""
        self._connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
        with self._connection.getresponse() as response:
            lines = response.headers.get_all("Set-Cookie") or []
            cookies = tuple(line.partition(";")[0].strip() for line in lines)
            return Answer(response.status, response.read().decode(), cookies)

    def begin(self, query: str = "") -> str:
        """Begin a session, and return its cookie.

        Raises:
            RuntimeError: The answer is another, or not exactly one cookie.
        """
        answer = self.get(f"/start{query}")
        if answer.said != (200, "somebody") or len(answer.cookies) != 1:
            raise RuntimeError(f"/start answered {answer.said} with {len(answer.cookies)} cookies")
        return answer.cookies[0]


@contextmanager
def visiting(port: int) -> Iterator[Visitor]:
    """Yield a visitor to the server on *port* of loopback."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        yield Visitor(connection)
    finally:
        connection.close()


def begin(port: int, count: int, query: str = "") -> list[str]:
    """Begin *count* sessions, and return their cookies."""
    with visiting(port) as visitor:
        return [visitor.begin(query) for _ in range(count)]

"""An HTTP client with one connection: it starts sessions and checks single responses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection


@dataclass(frozen=True, slots=True)
class Response:
    """Status, text and cookies of a response."""

    status: int
    text: str
    cookies: tuple[str, ...]
    """`name=value` of each Set-Cookie header line."""

    @property
    def status_and_text(self) -> tuple[int, str]:
        """Status and text together, to compare them."""
        return self.status, self.text


class Client:
    """Sends one request at a time; connects again if the server closed the connection."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection

    def get(self, path: str, cookie: str | None = None) -> Response:
        """GET *path*; *cookie* is the whole Cookie header."""
        self._connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
        with self._connection.getresponse() as response:
            lines = response.headers.get_all("Set-Cookie") or []
            cookies = tuple(line.partition(";")[0].strip() for line in lines)
            return Response(response.status, response.read().decode(), cookies)

    def start_session(self, query: str = "") -> str:
        """Start a session and return its cookie.

        Raises:
            RuntimeError: The response is not 200 `somebody` with exactly one cookie.
        """
        response = self.get(f"/start{query}")
        if response.status_and_text != (200, "somebody") or len(response.cookies) != 1:
            status, text = response.status_and_text
            raise RuntimeError(f"GET /start returned {status} {text!r} with {len(response.cookies)} cookies")
        return response.cookies[0]


@contextmanager
def connected_client(port: int) -> Iterator[Client]:
    """Yield a client of the server on *port* of loopback."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        yield Client(connection)
    finally:
        connection.close()


def start_sessions(port: int, count: int, query: str = "") -> list[str]:
    """Start *count* sessions and return their cookies."""
    with connected_client(port) as client:
        return [client.start_session(query) for _ in range(count)]

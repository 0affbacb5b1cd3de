"""A client of many WebSockets, which records when each was closed and why; and one of HTTP.

It parses no more than the benchmark needs: a handshake, and frames of servers that are not masked.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

TEXT, CLOSE, PING = 0x1, 0x8, 0x9
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_COOKIE = re.compile(rb"\r\nset-cookie: *([^;\r]+)", re.I)
_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{cookie}\r\n"
)
_AT_ONCE = 50
"""Handshakes that wait for an answer, so that no connection waits in a full queue of the system."""
LATE_S = 30.0


class WebSocket(asyncio.Protocol):
    """One open WebSocket. Times are of `time.time`, which the server has too."""

    def __init__(self) -> None:
        self.closed_s: float | None = None
        """When the close frame came, or the connection was lost without one."""
        self.code = 0
        """The close code; 0 without a close frame."""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Read the answer to the handshake, or frames."""
        now_s = time.time()
        self._received += data
        if not self.opened.done():
            head, blank, self._received = self._received.partition(b"\r\n\r\n")
            if not blank:
                self._received = head
            elif head.startswith(b"HTTP/1.1 101 "):
                self.opened.set_result(None)
            else:
                self.opened.set_exception(RuntimeError(f"a handshake was refused: {head[:60]!r}"))
                self._transport.abort()
        while (
            self.opened.done() and len(self._received) >= 2 and len(self._received) >= 2 + self._received[1]
        ):
            kind, end = self._received[0] & 0xF, 2 + self._received[1]
            payload, self._received = self._received[2:end], self._received[end:]
            self._receive_frame(kind, payload, now_s)

    def _receive_frame(self, kind: int, payload: bytes, now_s: float) -> None:
        if kind == TEXT:
            return
        if kind == PING:
            # A pong, masked with zeros.
            self._transport.write(bytes([0x8A, 0x80 | len(payload), 0, 0, 0, 0]) + payload)
            return
        if kind != CLOSE:
            raise RuntimeError(f"a frame of kind {kind} came, which nobody sends in this benchmark")
        self.closed_s, self.code = now_s, int.from_bytes(payload[:2], "big")
        # The same frame, masked with zeros.
        self._transport.write(bytes([0x88, 0x82, 0, 0, 0, 0]) + payload[:2])
        self._transport.close()

    def say(self) -> None:
        """Send a message, which the server repeats."""
        # Masked with zeros.
        self._transport.write(bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi")

    def connection_lost(self, exc: Exception | None) -> None:
        """Record the end."""
        self.closed_s = self.closed_s or time.time()
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionResetError("the server closed a handshake"))
        self.ended.set_result(None)

    def abort(self) -> None:
        """Close the connection without a close frame."""
        self._transport.abort()


async def open_sockets(port: int, path: str, cookies: Iterable[str]) -> list[WebSocket]:
    """Open a socket for each of *cookies*, an empty text for none.

    Raises:
        RuntimeError: The server refused one.
    """
    turns, loop = asyncio.Semaphore(_AT_ONCE), asyncio.get_running_loop()

    async def connected(cookie: str) -> WebSocket:
        async with turns:
            transport, socket = await loop.create_connection(WebSocket, "127.0.0.1", port)
            line = f"Cookie: {cookie}\r\n" if cookie else ""
            transport.write(_HANDSHAKE.format(path=path, port=port, cookie=line).encode())
            await socket.opened
            return socket

    return list(await asyncio.gather(*map(connected, cookies)))


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    body: bytes
    cookies: list[str] = field(default_factory=list)
    """`name=value` of each Set-Cookie header line."""
    sent_s: float = 0.0
    answered_s: float = 0.0

    @property
    def cookie(self) -> str:
        """The session cookie that the response leaves in the browser."""
        return [each for each in self.cookies if each.startswith("id=")][-1]


class Requests:
    """One persistent connection that sends a request at a time."""

    def __init__(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.port = port
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> Self:
        """Connect to the server on *port* of loopback."""
        return cls(port, *await asyncio.open_connection("127.0.0.1", port))

    async def get(self, path: str, cookie: str = "", *, expected: int = 200) -> Answer:
        """Send GET *path*.

        Raises:
            RuntimeError: The status is not *expected*.
        """
        line = f"Cookie: {cookie}\r\n" if cookie else ""
        sent_s = time.time()
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{line}\r\n".encode())
        async with asyncio.timeout(LATE_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await self._reader.readexactly(int(length[1])) if length else b""
        answered_s = time.time()
        status = int(head.split(b" ", 2)[1])
        if status != expected:
            raise RuntimeError(f"GET {path} was answered {status}: {body[:200]!r}")
        cookies = [found.decode() for found in _COOKIE.findall(head)]
        return Answer(status, body, cookies, sent_s, answered_s)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

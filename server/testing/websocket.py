"""`WebSocket`: the client's end of a WebSocket in a test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from tornado.httpclient import HTTPRequest
from tornado.httputil import HTTPHeaders
from tornado.websocket import WebSocketClientConnection, websocket_connect

TIMEOUT_S = 4.0
"""How long a test waits for a message, an event or the end of a connection: less than the 5 s that Tornado
gives a whole test, so that the error says what did not come."""


class Closed(NamedTuple):
    """How a WebSocket was closed; both are None if the connection broke without a close frame."""

    code: int | None
    reason: str | None


class SocketClosed(Exception):
    """The WebSocket is closed; there is no further message.

    Args:
        closed: How.
    """

    def __init__(self, closed: Closed) -> None:
        super().__init__(f"the socket is closed: {closed.code} {closed.reason}")
        self.closed = closed


class WebSocket:
    """A WebSocket that is open until the server or the end of the block closes it.

    `Client.websocket_connect` makes one.
    """

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self.connection = connection
        """Tornado's end of the connection."""
        self._is_over = False

    @property
    def selected_subprotocol(self) -> str | None:
        """The subprotocol that the server chose."""
        return self.connection.selected_subprotocol

    async def write_message(self, message: str | bytes | Mapping[str, Any]) -> None:
        """Send *message*: a text, bytes as a binary message, or a mapping as JSON.

        Raises:
            WebSocketClosedError: The socket is closed. Tornado's.
        """
        text = message if isinstance(message, str | bytes) else json.dumps(dict(message))
        await self.connection.write_message(text, binary=isinstance(message, bytes))

    async def read_message(self, *, timeout_s: float = TIMEOUT_S) -> str | bytes:
        """Wait for the next message and return it.

        Raises:
            SocketClosed: The socket is closed.
            TimeoutError: No message came within *timeout_s*.
        """
        message = await self._read(timeout_s, "no message came")
        if message is None:
            raise SocketClosed(self._closed())
        return message

    async def read_json(self, *, timeout_s: float = TIMEOUT_S) -> Any:
        """Wait for the next message and return what its JSON says.

        Raises:
            SocketClosed, TimeoutError: As `read_message`.
            ValueError: The message is not JSON.
        """
        return json.loads(await self.read_message(timeout_s=timeout_s))

    async def closed(self, *, timeout_s: float = TIMEOUT_S) -> Closed:
        """Wait until the server has closed the socket, skip messages before that, and return how.

        Raises:
            TimeoutError: It is still open after *timeout_s*.
        """
        until_s = asyncio.get_running_loop().time() + timeout_s
        while (
            await self._read(until_s - asyncio.get_running_loop().time(), "the socket was not closed")
        ) is not None:
            pass
        return self._closed()

    async def _read(self, timeout_s: float, fault: str) -> str | bytes | None:
        if self._is_over:
            return None  # Tornado tells it once, and waits for ever the second time
        try:
            message = await asyncio.wait_for(self.connection.read_message(), timeout_s)
        except TimeoutError:
            raise TimeoutError(f"{fault} in time") from None
        self._is_over = message is None
        return message

    def _closed(self) -> Closed:
        return Closed(self.connection.close_code, self.connection.close_reason)


@asynccontextmanager
async def connected(
    url: str, headers: HTTPHeaders, *, subprotocols: Sequence[str] | None
) -> AsyncIterator[WebSocket]:
    """Yield a WebSocket to *url*, and close it after the block.

    Raises:
        HTTPClientError: The server refused the handshake. Tornado's; `code` is the HTTP status.
    """
    # The server of a test has a certificate that nobody signed, if any.
    request = HTTPRequest(url, headers=headers, validate_cert=False)
    connection = await websocket_connect(
        request, subprotocols=None if subprotocols is None else list(subprotocols)
    )
    socket = WebSocket(connection)
    try:
        yield socket
    finally:
        connection.close()
        with suppress(TimeoutError):
            await socket.closed()

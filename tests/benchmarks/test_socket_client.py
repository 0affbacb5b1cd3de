"""The WebSocket client of the benchmark of live sockets."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.sockets.client import WebSocket

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class FakeTransport:
    """Records what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        """Record."""
        self.written += data

    def close(self) -> None:
        """Record."""
        self.is_closed = True

    abort = close


@pytest.mark.gen_test
async def test_client_reads_frames_in_any_pieces() -> None:
    """The answer to the handshake and the close frame come byte by byte; the close is answered."""
    socket, transport = WebSocket(), FakeTransport()
    socket.connection_made(transport)  # type: ignore[arg-type]
    for byte in ACCEPTED + b"\x88\x0c\x11\x31signed_out":
        socket.data_received(bytes([byte]))

    assert socket.opened.done() and socket.code == 4401
    assert (transport.written[-2:], transport.is_closed) == (b"\x11\x31", True)


@pytest.mark.gen_test
async def test_refused_handshake_raises() -> None:
    """So that a benchmark without sockets measures nothing."""
    socket, transport = WebSocket(), FakeTransport()
    socket.connection_made(transport)  # type: ignore[arg-type]
    socket.data_received(b"HTTP/1.1 401 Unauthorized\r\n\r\n")

    with pytest.raises(RuntimeError, match="401"):
        await asyncio.wait_for(socket.opened, 1)

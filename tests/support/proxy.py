"""A loopback TCP proxy that drops replies, to test a store whose reply never arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Literal, Self

Predicate = Callable[[bytes], bool]
Protocol = Literal["redis", "mongo"]


class DroppingProxy:
    """Forwards to a backend, counts the requests, and drops the selected replies.

    An async context manager; connect to `port` while it is open. The backend has executed a request whose
    reply is dropped, because the proxy received the reply.

    Args:
        target_port: The backend's loopback port. After a change new connections go to the new one.
        protocol: How to split the client's bytes into requests.
    """

    def __init__(self, target_port: int, *, protocol: Protocol) -> None:
        self.port = 0
        self.requests: list[bytes] = []
        """Every request as sent: RESP arrays of Redis, wire messages of MongoDB."""
        self.target_port = target_port
        self._requests_in = _redis_requests if protocol == "redis" else _mongo_requests
        self._drops: list[tuple[Predicate, bool]] = []
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        await self._server.wait_closed()

    def drop_replies(self, predicate: Predicate, *, times: int = 1, hang: bool = False) -> None:
        """Drop the reply of each of the next *times* requests for which *predicate* holds.

        Args:
            hang: Keep the connection open without a reply instead of closing it.
        """
        self._drops += [(predicate, hang)] * times

    def count(self, needle: bytes) -> int:
        """Return the number of requests that contain *needle*, ignoring case."""
        return sum(needle.lower() in request.lower() for request in self.requests)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            with suppress(ConnectionError):
                await _Link(self, reader, writer).run(self.target_port)
        except asyncio.CancelledError:
            pass  # Only __aexit__ cancels, and asyncio's server would log it.
        finally:
            self._links.discard(task)
            writer.close()

    def _note(self, request: bytes) -> bool | None:
        """Record *request*; return None to deliver its reply, else whether to hang after the drop."""
        self.requests.append(request)
        for index, (predicate, hang) in enumerate(self._drops):
            if predicate(request):
                del self._drops[index]
                return hang
        return None


class _Link:
    """One client connection and its backend connection."""

    def __init__(
        self, proxy: DroppingProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._is_dropping = False
        self._closes_after_drop = False

    async def run(self, target_port: int) -> None:
        """Forward both ways until one side closes or a reply was dropped."""
        from_backend, to_backend = await asyncio.open_connection("127.0.0.1", target_port)
        tasks = [
            asyncio.ensure_future(self._forward_requests(to_backend)),
            asyncio.ensure_future(self._forward_replies(from_backend)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            to_backend.close()

    async def _forward_requests(self, to_backend: asyncio.StreamWriter) -> None:
        buffer = bytearray()
        while chunk := await self._reader.read(65536):
            buffer += chunk
            for request in self._proxy._requests_in(buffer):
                hang = self._proxy._note(request)
                if hang is not None:
                    self._is_dropping, self._closes_after_drop = True, not hang
                to_backend.write(request)
            await to_backend.drain()

    async def _forward_replies(self, from_backend: asyncio.StreamReader) -> None:
        while chunk := await from_backend.read(65536):
            if not self._is_dropping:
                self._writer.write(chunk)
                await self._writer.drain()
            elif self._closes_after_drop:
                return


def _redis_requests(buffer: bytearray) -> Iterator[bytes]:
    """Remove and yield complete commands (RESP arrays of bulk strings) at the start of *buffer*."""
    while (end := _redis_end(buffer)) is not None:
        yield bytes(buffer[:end])
        del buffer[:end]


def _redis_end(buffer: bytearray) -> int | None:
    line = buffer.find(b"\r\n")
    if line < 0:
        return None
    position = line + 2
    for _ in range(int(buffer[1:line])):
        line = buffer.find(b"\r\n", position)
        if line < 0:
            return None
        position = line + 2 + int(buffer[position + 1 : line]) + 2
    return position if position <= len(buffer) else None


def _mongo_requests(buffer: bytearray) -> Iterator[bytes]:
    """Remove and yield complete wire messages at the start of *buffer*; each begins with its length."""
    while len(buffer) >= 4 and len(buffer) >= (size := int.from_bytes(buffer[:4], "little")):
        yield bytes(buffer[:size])
        del buffer[:size]

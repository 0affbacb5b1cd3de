"""A loopback TCP proxy that stalls and cuts its connections on demand."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class StallingProxy:
    """Forwards bytes to a backend, except while it stalls. An async context manager.

    While it stalls, connections stay open, and new ones are accepted, but no byte passes.

    Args:
        target_port: The backend's loopback port.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.held = 0
        """How many pieces of data wait for the end of a stall."""
        self._target_port = target_port
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._links:
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        await self._server.wait_closed()

    def stall(self) -> None:
        """Let no byte pass, in neither direction."""
        self._flows.clear()

    def resume(self) -> None:
        """Let the bytes pass again, also those that came meanwhile."""
        self._flows.set()

    def cut(self) -> None:
        """Reset every connection that is open."""
        for writer in self._links.values():
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links[task] = writer
        try:
            with suppress(OSError):
                await self._link(reader, writer)
        except asyncio.CancelledError:
            pass  # Only __aexit__ cancels, and asyncio's server would log it.
        finally:
            self._links.pop(task)
            writer.transport.abort()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_backend, to_backend = await asyncio.open_connection("127.0.0.1", self._target_port)
        ways = [
            asyncio.ensure_future(self._forward(reader, to_backend)),
            asyncio.ensure_future(self._forward(from_backend, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            to_backend.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            self.held += 1
            try:
                await self._flows.wait()
            finally:
                self.held -= 1
            writer.write(chunk)
            await writer.drain()

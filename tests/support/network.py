"""A network between a program and a server on loopback that stalls, breaks, delays and loses on demand."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Self


class Network:
    """Forwards bytes to a server. An async context manager; connect to `port` while it is open.

    Args:
        target_port: The server's loopback port. After a change new connections go to the new one.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        """Where to connect; it stays the same."""
        self.held = 0
        """How many pieces of data wait for the end of a stall."""
        self.delay_s = 0.0
        """How long each piece of data takes, in each direction."""
        self.loses_replies = False
        """Whether the server's bytes are dropped; those of its clients pass."""
        self.breaks_replies = False
        """Whether a connection is reset after half of the next reply."""
        self.target_port = target_port
        self._flows = _open_gate()
        self._flows_from: defaultdict[str, asyncio.Event] = defaultdict(_open_gate)
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.refuse()
        # asyncio accepts in several steps: a task that is cancelled before its first one closes nothing.
        await asyncio.sleep(0.02)
        for task in self._links:
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def accept(self) -> None:
        """Let connections come, as at the beginning."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse new connections; the open ones stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def stall(self, source: str | None = None) -> None:
        """Let no byte pass, in neither direction; connections stay open, and new ones are accepted.

        Args:
            source: Only on connections from this loopback address.
        """
        self._gate(source).clear()

    def resume(self, source: str | None = None) -> None:
        """Let the bytes pass again, also those that came meanwhile."""
        self._gate(source).set()

    def abandon(self) -> None:
        """Let no byte pass any more on the connections that are open now; later ones work."""
        self._flows.clear()
        self._flows = asyncio.Event()
        self._flows.set()

    def cut(self) -> None:
        """Reset every connection that is open."""
        for writer in self._links.values():
            writer.transport.abort()

    def _gate(self, source: str | None) -> asyncio.Event:
        return self._flows if source is None else self._flows_from[source]

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
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target_port)
        gates = self._flows, self._flows_from[writer.get_extra_info("peername")[0]]
        ways = [
            asyncio.ensure_future(self._forward(reader, to_server, gates, is_reply=False)),
            asyncio.ensure_future(self._forward(from_server, writer, gates, is_reply=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            to_server.transport.abort()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        gates: Sequence[asyncio.Event],
        *,
        is_reply: bool,
    ) -> None:
        while chunk := await reader.read(65536):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            self.held += 1
            try:
                for gate in gates:
                    await gate.wait()
            finally:
                self.held -= 1
            if is_reply and self.loses_replies:
                continue
            if is_reply and self.breaks_replies:
                writer.write(chunk[: len(chunk) // 2])
                await writer.drain()
                return
            writer.write(chunk)
            await writer.drain()


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate

"""A client of `GET /events`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.browser import Browser
from tests.support.site import Site

SOON_S = 5.0
LIST = "/events?list=sessions"


class Stream:
    """A stream that is being read."""

    head = ""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, path: str, browser: Browser) -> None:
        """Send the request, and read the head of the response."""
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        host = browser.base.rpartition("/")[2]
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\n\r\n".encode())
        self.head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), SOON_S)).decode()

    async def next(self) -> tuple[str, Any]:
        """Return the type and the data of the next event; an empty type at the end of the response."""
        async with asyncio.timeout(SOON_S):
            size = int(await self._reader.readline(), 16)
            event = (await self._reader.readexactly(size + 2)).decode()
        if not size:
            return "", None
        fields = dict(line.split(": ", 1) for line in event.strip().splitlines())
        return fields["event"], json.loads(fields["data"])

    async def is_silent(self) -> bool:
        """Whether nothing comes for a while."""
        try:
            await asyncio.wait_for(self._reader.readline(), 0.3)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        """Hang up."""
        self._writer.transport.abort()


@asynccontextmanager
async def opened(site: Site, browser: Browser, path: str = "/events") -> AsyncIterator[Stream]:
    """Open a stream, and hang up in the end."""
    stream = Stream(*await asyncio.open_connection("127.0.0.1", site.port))
    await stream.ask(path, browser)
    try:
        yield stream
    finally:
        stream.close()
        async with asyncio.timeout(SOON_S):
            while site.context.in_flight.count:  # noqa: ASYNC110  nobody else waits for that
                await asyncio.sleep(0.01)

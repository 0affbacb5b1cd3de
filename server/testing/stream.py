"""`EventStream`: server-sent events that a test reads."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from tornado.httputil import HTTPHeaders, parse_response_start_line

MOST_BYTES = 16 * 1024 * 1024
"""How long a line of an event may be."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event."""

    data: str
    event: str = "message"
    """Its type."""
    id: str | None = None

    def json(self) -> Any:
        """Return what the JSON of `data` says; `SessionStreamMixin` sends JSON."""
        return json.loads(self.data)


class EventStream:
    """An open response of server-sent events; iterate over it, or await `next`.

    `Client.event_stream` makes one.
    """

    def __init__(
        self, code: int, headers: HTTPHeaders, reader: asyncio.StreamReader, *, timeout_s: float
    ) -> None:
        self.code = code
        """The HTTP status. What is not 200 is no stream of events, and `next` reads none."""
        self.headers = headers
        self._reader = reader
        self._timeout_s = timeout_s

    async def next(self) -> ServerEvent | None:
        """Wait for the next event and return it; None at the end of the response. Comments are skipped.

        Raises:
            TimeoutError: No event came in time.
        """
        fields: dict[str, list[str]] = {}
        try:
            async with asyncio.timeout(self._timeout_s):
                while line := await self._reader.readline():
                    text = line.decode().rstrip("\r\n")
                    name, _, value = text.partition(":")
                    if name:
                        fields.setdefault(name, []).append(value.removeprefix(" "))
                    elif not text and "data" in fields:
                        return _event(fields)
                    elif not text:
                        fields.clear()
        except TimeoutError:
            raise TimeoutError("no event came in time") from None
        return None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerEvent:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event


def _event(fields: dict[str, list[str]]) -> ServerEvent:
    identities = fields.get("id")
    return ServerEvent(
        "\n".join(fields["data"]),
        fields.get("event", ["message"])[-1],
        identities[-1] if identities else None,
    )


@asynccontextmanager
async def opened(url: str, headers: HTTPHeaders, *, timeout_s: float) -> AsyncIterator[EventStream]:
    """Yield the response to a GET of *url* while it is being sent, and hang up after the block.

    Tornado's client cannot hang up. An HTTP/1.0 response has no chunks and ends with the connection, so its
    body needs no parser.

    Raises:
        TimeoutError: No response began in time.
    """
    where = urlsplit(url)
    assert where.hostname is not None
    context = None
    if where.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    target = where.path + (f"?{where.query}" if where.query else "")
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.get_all())
    reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=context, limit=MOST_BYTES)
    try:
        writer.write(f"GET {target} HTTP/1.0\r\n{head}\r\n".encode("latin1"))
        try:
            async with asyncio.timeout(timeout_s):
                start, _, rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").partition("\r\n")
        except TimeoutError:
            raise TimeoutError(f"no response to GET {where.path} began in time") from None
        code = parse_response_start_line(start).code
        yield EventStream(code, HTTPHeaders.parse(rest.rstrip("\r\n")), reader, timeout_s=timeout_s)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()

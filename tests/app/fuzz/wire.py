"""The wire: requests as bytes, answers as they come back, and what the server logs meanwhile."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from tests.app.fuzz.requests import Sent
from tests.app.fuzz.world import PATIENCE_S

MAX_HEAD = 16 * 1024

_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [ -~]*\r\n((?:[!#-'*+.^-z|~0-9A-Z-]+: [\t -~\x80-\xff]*\r\n)*)\r\n")


@dataclass(frozen=True)
class Answer:
    """One response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        """Return the values of the headers called *name*."""
        return [value for each, value in self.headers if each == name]


class Wire(asyncio.Protocol):
    """A connection that is kept from request to request while the site keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._got = bytearray()
        self._news = asyncio.Event()
        self._transport: Any = None
        self._patience_s = PATIENCE_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self._got.clear()

    def data_received(self, data: bytes) -> None:
        """Keep what came."""
        self._got += data
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._transport = None
        self._news.set()

    def close(self) -> None:
        """Let the next request open another."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def exchange(self, sent: Sent) -> list[Answer]:
        """Send a request and return its answer, or all that come of one whose end is unclear; maybe none."""
        try:
            async with asyncio.timeout(self._patience_s):
                answers = await self._exchange(sent)
        except TimeoutError:
            self.close()
            self._patience_s = 1.0  # or it takes minutes to find the smallest such request
            raise
        if not answers or "close" in answers[0].header("Connection"):
            self.close()
        assert answers or not sent.is_whole or len(sent.raw) > MAX_HEAD, "no answer"
        assert not self._got, f"more than one answer: {bytes(self._got[:300])!r}"
        return answers

    async def _exchange(self, sent: Sent) -> list[Answer]:
        await self._send(sent.raw)
        if not sent.is_whole:
            self._transport.write_eof()
        answers = [answer async for answer in self._answers(sent)]
        if not sent.is_whole:
            await self._settle()
        return answers

    async def _send(self, raw: bytes) -> None:
        if self._transport is None:
            await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._port)
        self._transport.write(raw)

    async def _settle(self) -> None:
        """Ask for something else: once that is answered, the work of what came before has at least begun."""
        self.close()
        await self._send(b"HEAD /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert await self._answer("HEAD")

    async def _answers(self, sent: Sent) -> AsyncIterator[Answer]:
        method = sent.method
        while (answer := await self._answer(method)) is not None:
            if answer.status >= 200:
                yield answer
                if sent.is_whole:
                    return
                method = "GET"

    async def _answer(self, method: str) -> Answer | None:
        """Return the next answer, or None at the end."""
        while b"\r\n\r\n" not in self._got:
            if not await self._more():
                self._got.clear()
                return None
        head = _HEAD.match(self._got)
        assert head, f"not an answer: {bytes(self._got[:300])!r}"
        lines = head[2].decode("latin-1").split("\r\n")[:-1]
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        answer = Answer(int(head[1]), headers, b"")
        del self._got[: head.end()]
        return replace(answer, body=await self._body(answer, method))

    async def _body(self, answer: Answer, method: str) -> bytes:
        lengths = answer.header("Content-Length")
        if method != "HEAD" and answer.header("Content-Type") == ["text/event-stream"]:
            # It has no end, so its first event is the answer.
            while b"\n\n" not in self._got and await self._more():
                pass
            body = bytes(self._got)
            self._got.clear()
            self.close()
            return body
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            size = 0
        else:
            size = int(lengths[0]) if lengths else sys.maxsize  # up to the end
        while len(self._got) < size and await self._more():
            pass
        body = bytes(self._got[:size])
        del self._got[:size]
        return body

    async def _more(self) -> bool:
        """Wait for more, and tell whether there can be any."""
        if self._transport is None:
            return False
        self._news.clear()
        await self._news.wait()
        return True


class Log(logging.Handler):
    """Keeps what was logged since the last look."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._lines.append((record.levelno, self.format(record)))

    def take(self) -> list[tuple[int, str]]:
        """Return the level and the text of each line, and forget them."""
        lines, self._lines = self._lines, []
        return lines

"""An application with `SessionMixin` on a steered store, and a connection that exposes every byte."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tornado.httpclient import HTTPResponse
from tornado.web import Application, RequestHandler

from stormcellar import SessionManager, SessionMixin, session_settings
from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.request_info import Client, FixedRequestInfo
from stormcellar.sessions.session import state_of
from stormcellar.stores import Handle, Record, Scannable, Store
from stormcellar.stores.memory import MemoryStore
from tests.support.browser import Browser
from tests.support.fakes import Clock, SteeredStore

KEY = bytes(range(32))
JSON = {"Content-Type": "application/json"}


class Lab:
    """An application with a session manager on a steered store; tests add the handlers.

    Args:
        store: None: a memory store.
        settings: Settings of the application.
        manager: Arguments of the session manager.
    """

    def __init__(
        self, *, store: Store | None = None, settings: dict[str, Any] | None = None, **manager: Any
    ) -> None:
        self.clock = Clock()
        self.inner = MemoryStore() if store is None else store
        self.store = SteeredStore(self.inner)
        self.sessions = SessionManager(self.store, secrets=[KEY], clock=self.clock, **manager)
        self.access: list[int] = []
        self.app = Application(
            [("/ping", Ping)],
            **session_settings(
                self.sessions,
                log_function=lambda handler: self.access.append(handler.get_status()),
                **settings or {},
            ),
        )

    def serve(
        self, path: str, *, bases: tuple[type, ...] = (SessionMixin, RequestHandler), **members: Any
    ) -> None:
        """Add a handler whose methods and attributes are *members*."""
        self.app.add_handlers(".*", [(path, type("Page", bases, members))])

    async def open_session(
        self, browser: Browser, *, user: str | None = None, auth_ms: int | None = None, **data: Any
    ) -> SessionId:
        """Create a live session for *browser* and return its ID; reset the count of store calls."""
        session = await self.sessions.load(None, FixedRequestInfo(Client("127.0.0.1", "test")))
        session.update(data)
        if user is None:
            await session.commit()
        else:
            await session.login(user, keep=data, auth_ms=auth_ms)
        sid = state_of(session).sid
        assert sid is not None
        browser.cookies[self.sessions.cookies.name] = self.signed(sid)
        self.store.calls.clear()
        return sid

    def signed(self, sid: SessionId) -> str:
        """Return the cookie value of *sid*."""
        sink = _Lines()
        self.sessions.cookies.write(sink, sid)
        return sink.line.partition("=")[2].partition(";")[0]

    async def end(self, handle: Handle) -> None:
        """Destroy a session behind the manager's back."""
        await self.inner.destroy(handle, now_ms=self.sessions.now_ms())

    async def supersede(self, sid: SessionId) -> None:
        """Rotate the session ID *sid*, as another request would."""
        other = await self.sessions.load(sid, FixedRequestInfo(Client("127.0.0.1", "test")))
        await other.renew()
        self.store.calls.clear()

    async def sign_in_elsewhere(self, sid: SessionId, user: str) -> None:
        """Sign *user* in over the session *sid*, as another request would."""
        other = await self.sessions.load(sid, FixedRequestInfo(Client("127.0.0.1", "test")))
        await other.login(user)

    async def write_elsewhere(self, sid: SessionId, **data: Any) -> None:
        """Write *data*, as another request would."""
        other = await self.sessions.load(sid, FixedRequestInfo(Client("127.0.0.1", "test")))
        other.update(data)
        await other.commit()

    async def records(self) -> list[Record]:
        """Return every live record."""
        assert isinstance(self.inner, Scannable)
        return [record async for record in self.inner.scan(now_ms=self.sessions.now_ms())]

    async def data(self, handle: Handle | None = None) -> dict[str, Any] | None:
        """Return the decoded data of *handle*, by default of the only session."""
        found = [r for r in await self.records() if handle in (None, r.handle)]
        assert len(found) <= 1
        return {key: json.loads(raw) for key, raw in found[0].data.items()} if found else None


class _Lines:
    line = ""

    def add_header(self, name: str, value: str) -> None:
        self.line = value


class Ping(RequestHandler):
    """A page without the mixin."""

    def get(self) -> None:
        """Respond."""
        self.write("pong")


def look(self: Any) -> None:
    """Respond with the data of the session: a handler method that only reads."""
    self.write({"user": self.session.user, "data": dict(self.session)})


def count(self: Any) -> None:
    """Count visits: a handler method that reads and writes."""
    self.session["visits"] = self.session.get("visits", 0) + 1
    self.write(f"visit {self.session['visits']}")


async def post_json(browser: Browser, path: str = "/", **headers: str) -> HTTPResponse:
    """POST JSON, as a script does; JSON needs no form token."""
    return await browser.fetch("POST", path, body=b"{}", headers={**JSON, **headers})


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the log messages at level ERROR or above."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def cookie_lines(response: HTTPResponse) -> list[str]:
    """Return the Set-Cookie lines of *response* in order."""
    return response.headers.get_list("Set-Cookie")


def set_names(response: HTTPResponse) -> list[str]:
    """Return the cookies that *response* sets (`id`) or deletes (`-id`)."""
    return [
        ("-" if "max-age=0" in line.lower() else "") + line.partition("=")[0]
        for line in cookie_lines(response)
    ]


@dataclass(frozen=True)
class Reply:
    """One response as received."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def get_list(self, name: str) -> list[str]:
        """Return the values of the header *name* in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Wire:
    """A connection to the server on *port* of this machine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> Wire:
        """Connect to *port*."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**20))

    def send(self, raw: bytes) -> None:
        """Send *raw* unchanged."""
        self._writer.write(raw)

    def ask(
        self,
        start: str,
        headers: Sequence[str] = (),
        *,
        body: bytes = b"",
        host: str = "localhost",
    ) -> None:
        """Send a request with the request line *start*, such as `GET / HTTP/1.1`."""
        lines = [start, f"Host: {host}", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin1") + body)

    async def reply(self, *, to_head: bool = False) -> Reply | None:
        """Read one response; None if the server closed the connection first."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        first, *lines = head.decode("latin1").removesuffix("\r\n\r\n").split("\r\n")
        _, status, reason = first.split(" ", 2)
        headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
        reply = Reply(int(status), reason, headers, b"")
        has_body = not to_head and int(status) not in (101, 204, 304)
        if has_body:
            try:
                reply = replace(reply, body=await self._body(reply))
            except asyncio.IncompleteReadError as exc:
                reply = replace(reply, body=exc.partial + b"(cut off)")
        return reply

    async def _body(self, reply: Reply) -> bytes:
        if reply.get_list("Transfer-Encoding") == ["chunked"]:
            body = b""
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readexactly(2)
            return body
        if lengths := reply.get_list("Content-Length"):
            return await self._reader.readexactly(int(lengths[0]))
        return await self._reader.read()

    async def first_byte(self) -> bytes:
        """Read one byte; empty if the connection ends."""
        return await self._reader.read(1)

    async def is_open(self) -> bool:
        """Whether the server responds to one more request."""
        self.ask("GET /ping HTTP/1.1")
        reply = await self.reply()
        return reply is not None and reply.body == b"pong"

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

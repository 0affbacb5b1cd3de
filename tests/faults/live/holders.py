"""Browsers with an open socket each, and when it was closed."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.faults.browser import Browser, Failed
from tests.faults.journal import Journal
from tests.faults.site import PASSWORD, PATIENCE_S, PEOPLE, name

HOLDERS = 24
AGAIN_S = 0.1
OPENING_S = 60.0


class Holder:
    """A browser of a signed-in user, with an open socket. Times are `time.monotonic()` in seconds."""

    def __init__(self, http: AsyncHTTPClient, base: str) -> None:
        self._base = base
        self._http = http
        self._browser = self._new_browser()
        self._cookie = ""
        self._socket: WebSocketClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self.pid = 0
        """The process that serves the socket."""
        self.asked_s: float | None = None
        """When this browser began to sign out."""
        self.ended_s: float | None = None
        """When the server said that it is signed out."""
        self.closed_s: float | None = None
        """When the socket was closed."""
        self.close: tuple[int | None, str | None] = (None, None)
        """The code and the reason."""

    async def open(self, user: str) -> None:
        """Sign in and open the socket."""
        while self._browser.user is None:
            with suppress(Failed):  # too many passwords at once
                answer = await self._browser.send("POST", "/login", {"username": user, "password": PASSWORD})
                assert answer.status == 200, answer
                self._browser.begin(user)
        self._cookie = self._browser.session_cookie or ""
        headers = {"Cookie": self._cookie, "Origin": self._base}
        url = self._base.replace("http", "ws", 1) + "/live"
        self._socket = await websocket_connect(HTTPRequest(url, headers=headers))
        self.pid = int(await self._socket.read_message() or 0)
        self._reading = asyncio.create_task(self._read(self._socket))

    async def _read(self, socket: WebSocketClientConnection) -> None:
        while await socket.read_message() is not None:
            pass
        self.closed_s = time.monotonic()
        self.close = socket.close_code, socket.close_reason

    async def sign_out(self) -> None:
        """Sign out, again and again until the server says that it is done."""
        self.asked_s = time.monotonic()
        while True:
            with suppress(Failed):
                answer = await self._browser.send("POST", "/logout")
                # An earlier try may have done it, without an answer.
                assert answer.status in (204, 401, 409), answer
                self.ended_s = time.monotonic()
                return
            await asyncio.sleep(AGAIN_S)

    async def is_accepted(self) -> bool:
        """Whether somebody is signed in with the cookie of the socket."""
        while True:
            with suppress(Failed):
                is_somebody, _ = await self._new_browser().is_accepted(self._cookie)
                return is_somebody
            await asyncio.sleep(AGAIN_S)

    async def leave(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def _new_browser(self) -> Browser:
        return Browser(self._http, self._base, Journal(), patience_s=PATIENCE_S)


class Holders:
    """All of them; an async context manager that opens the sockets, some in each of two processes."""

    def __init__(self, base: str) -> None:
        # A connection for each request: what a fault did to one does not excuse the next request.
        self._http: AsyncHTTPClient = SimpleAsyncHTTPClient(force_instance=True, max_clients=2 * HOLDERS)
        self.all = [Holder(self._http, base) for _ in range(HOLDERS)]

    async def __aenter__(self) -> list[Holder]:
        async with asyncio.timeout(OPENING_S):
            await asyncio.gather(*(holder.open(name(n % PEOPLE)) for n, holder in enumerate(self.all)))
        processes = {holder.pid for holder in self.all}
        assert len(processes) == 2, "one process has all sockets"
        return self.all

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.gather(*(holder.leave() for holder in self.all))
        self._http.close()

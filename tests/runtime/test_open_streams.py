"""Sockets and streams of the server: they end when it stops, and do not hold up the stop."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Self

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.web import RequestHandler
from tornado.websocket import WebSocketClientConnection, WebSocketHandler, websocket_connect

from stormcellar import Rechecks, SessionSocketMixin, SessionStreamMixin
from tests.runtime.test_drain import Running, running
from tests.support.browser import Browser
from tests.support.embedding import Wire
from tests.support.site import Site, sign_in

SOON_S = 5.0
HANDSHAKE = [
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    *("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Origin: http://localhost"),
]


class Ticks(SessionStreamMixin, RequestHandler):
    """A stream with one event."""

    async def get(self) -> None:
        """Send it, and wait for ever."""
        async with self.event_stream() as send:
            await send("tick")
            await asyncio.Event().wait()


class Echo(SessionSocketMixin, WebSocketHandler):
    """A socket that answers."""

    def on_message(self, message: str | bytes) -> None:
        """Answer."""
        self.write_message(message)


class Open:
    """A server with an open stream and an open socket of one signed-in user."""

    def __init__(self, it: Running) -> None:
        app: Any = it.server._http.request_callback
        app.add_handlers(".*", [("/ticks", Ticks), ("/echo", Echo)])
        self.it = it
        self.browser = Browser(AsyncHTTPClient(), it.browser.base)
        self.socket: WebSocketClientConnection
        self.events: asyncio.Queue[bytes] = asyncio.Queue()

    async def start(self, user: str = "alice") -> Self:
        """Sign in and open both."""
        assert (await sign_in(self.browser, user)).code == 303
        self.cookies = [f"Cookie: id={self.browser.cookies['id']}"]
        self.socket = await websocket_connect(self.request("ws", "/echo"))
        streamed = self.request("http", "/ticks", streaming_callback=self.events.put_nowait)
        self.stream = asyncio.ensure_future(AsyncHTTPClient().fetch(streamed))
        assert await asyncio.wait_for(self.events.get(), SOON_S) == b'data: "tick"\n\n'
        return self

    def request(self, scheme: str, path: str, **options: Any) -> HTTPRequest:
        """Return a request of this user."""
        base = f"http://127.0.0.1:{self.it.port}"
        headers = {"Origin": base, "Cookie": self.cookies[0].partition(" ")[2]}
        url = f"{scheme}://127.0.0.1:{self.it.port}{path}"
        return HTTPRequest(url, headers=headers, request_timeout=60, **options)

    async def closing(self) -> tuple[int | None, str | None, int]:
        """Wait for the end of both; return the close code and reason, and the status of the stream."""
        assert await asyncio.wait_for(self.socket.read_message(), SOON_S) is None
        self.socket.close()
        status = (await asyncio.wait_for(self.stream, SOON_S)).code
        return self.socket.close_code, self.socket.close_reason, status


@pytest.mark.gen_test
async def test_a_stop_does_not_wait_for_streams_and_sockets(site: Site) -> None:
    """The socket closes with 1001 and the stream ends, so that their clients connect elsewhere."""  # H10 J3
    async with running(site) as it:
        opened = await Open(it).start()
        # A client that does not answer the close frame.
        silent = await Wire.connect(it.port)
        silent.ask("GET /echo HTTP/1.1", [*HANDSHAKE, *opened.cookies])
        reply = await silent.reply()
        assert reply is not None
        assert reply.status == 101
        since_s = time.monotonic()
        it.stop.set()
        closing = await opened.closing()
        await asyncio.wait_for(it.ended, SOON_S)
        took_s = time.monotonic() - since_s
        await silent.close()

        assert closing == (1001, "stopped", 200)
        assert opened.events.empty()
        assert took_s < SOON_S  # a server that waits does so for 10 s


@pytest.mark.gen_test
async def test_they_stay_open_while_the_balancer_is_waited_for(site: Site) -> None:
    """During --drain they work as before: their clients could only connect to this server again."""  # H10
    async with running(site, drain="2s") as it:
        opened = await Open(it).start()
        it.stop.set()
        await asyncio.sleep(0.1)
        await opened.socket.write_message("still here")
        during = await asyncio.wait_for(opened.socket.read_message(), SOON_S), opened.stream.done()
        closing = await opened.closing()

    assert (during, closing) == (("still here", False), (1001, "stopped", 200))


@pytest.mark.gen_test
async def test_none_is_opened_after_that(site: Site) -> None:
    """On a connection that is still open: 503, and the client tries another server."""  # H10
    async with running(site) as it:
        opened = await Open(it).start()
        connections = [await Wire.connect(it.port) for _ in range(2)]
        for each in connections:
            each.ask("GET /healthz HTTP/1.1")
            await each.reply()
        gate = it.store.gate("apply")
        writing = asyncio.ensure_future(opened.browser.json("PATCH", "/session", {"a": 1}))
        await gate.reached()
        it.stop.set()
        await opened.closing()
        connections[0].ask("GET /ticks HTTP/1.1", opened.cookies)
        connections[1].ask("GET /echo HTTP/1.1", [*HANDSHAKE, *opened.cookies])
        replies = [await each.reply() for each in connections]
        gate.open()
        await writing
        for each in connections:
            await each.close()

    assert [reply and reply.status for reply in replies] == [503, 503]


@pytest.mark.gen_test
async def test_recheck_is_the_setting(site: Site) -> None:
    """Sessions are checked as often as `--recheck` says, and given up after twice that time."""
    async with running(site, recheck="20s") as it:
        assert it.server.sessions.watch._rechecks == Rechecks(every_s=20.0)
        assert it.server.sessions.watch._rechecks.longest_s == 40.0

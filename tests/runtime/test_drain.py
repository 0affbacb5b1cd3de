"""Shutdown: what is in flight is finished, what is new is refused, and nothing can hold it up for ever."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import pytest
from tornado.netutil import bind_sockets
from tornado.simple_httpclient import HTTPStreamClosedError

import stormcellar.runtime.server
from stormcellar.app.audit_log import AuditLog
from stormcellar.app.context import InFlight
from stormcellar.runtime.connections import Phase
from stormcellar.runtime.load_settings import load_settings
from stormcellar.runtime.reloadable import Reloadable
from stormcellar.stores import StoreOptions
from stormcellar.stores.memory import MemoryStore
from tests.support.fakes import SteeredStore
from tests.support.site import KEY, Site, raw


class HeldStore(SteeredStore):
    """A steered store in memory that the settings can name."""

    is_closed = False

    @classmethod
    def from_url(cls, url: str, options: StoreOptions) -> Self:
        """Make one."""
        return cls(MemoryStore())

    async def aclose(self) -> None:
        """Note that it happened."""
        self.is_closed = True
        await super().aclose()


class Running:
    """A server that was made from settings, serving until told to stop."""

    def __init__(self, site: Site, **options: str) -> None:
        given = {"store": "tests.runtime.test_drain:HeldStore", "demo": "false", "drain": "0s", **options}
        settings = load_settings(given, {})
        reloadable = Reloadable(settings, [KEY], tls=None, audit=AuditLog(None))
        self.server = stormcellar.runtime.server.Server(
            settings, accounts=site.context.accounts, reloadable=reloadable
        )
        self.store: Any = self.server.sessions.store
        sockets = bind_sockets(0, "127.0.0.1", family=socket.AF_INET)
        self.port = sockets[0].getsockname()[1]
        self.stop = asyncio.Event()
        self.ended = asyncio.ensure_future(self.server.run(sockets, self.stop))
        self.browser = site.browser()
        self.browser.base = f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def running(site: Site, **options: str) -> AsyncIterator[Running]:
    """Serve, and stop in the end if the test did not."""
    it = Running(site, **options)
    try:
        yield it
    finally:
        it.stop.set()
        await asyncio.wait_for(it.ended, 20)


@pytest.mark.gen_test
async def test_a_shutdown_finishes_what_is_in_flight(site: Site) -> None:
    """A write that was being saved is saved and answered; no new connection is taken meanwhile."""  # H10
    async with running(site) as it:
        gate = it.store.gate("create")
        writing = asyncio.ensure_future(it.browser.json("PATCH", "/session", {"a": 1}))
        await gate.reached()
        it.stop.set()
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", it.port)
        was_closed = it.store.is_closed
        gate.open()
        status, body = await writing
        await it.ended

        assert (status, body["data"], was_closed) == (200, {"a": 1}, False)
        assert it.store.is_closed


@pytest.mark.gen_test
async def test_a_shutdown_waits_for_the_save_of_a_client_that_hung_up(site: Site) -> None:
    """The client is gone, its write is not, and its request is not waited for longer than that."""
    async with running(site) as it:
        gate = it.store.gate("create")
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(
            b"PATCH /session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 8\r\n\r\n{"a": 1}'
        )
        await gate.reached()
        writer.close()
        it.stop.set()
        gate.open()
        await asyncio.wait_for(it.ended, 5)

        assert it.server.context.in_flight.count == 0
        assert [record.data async for record in it.store.scan(now_ms=0)] == [{"a": b"1"}]


@pytest.mark.gen_test
async def test_an_idle_connection_does_not_hold_up_a_shutdown(site: Site) -> None:
    """One that was kept alive is closed."""
    async with running(site) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        it.stop.set()
        rest = await asyncio.wait_for(reader.read(), 5)
        writer.close()

        assert (b" 200 OK" in head, rest) == (True, b'{"status": "ok"}')


@pytest.mark.gen_test
async def test_a_kept_connection_is_told_that_the_end_is_near(site: Site) -> None:
    """A request that comes in while others are being finished is answered, and its connection closed."""
    async with running(site) as it:
        gate = it.store.gate("create")
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"}")
        writing = asyncio.ensure_future(it.browser.json("PATCH", "/session", {"a": 1}))
        await gate.reached()
        it.stop.set()
        await asyncio.sleep(0)
        writer.write(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        gate.open()
        await writing
        writer.close()

        assert (b"Connection: close" in head, b" 404 " in head) == (True, True)


@pytest.mark.gen_test
async def test_balancer_is_told_before_the_port_closes(site: Site) -> None:
    """During --drain new connections are served, each with one response, and /readyz is 503."""  # H10
    async with running(site, drain="2s") as it:
        kept, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        before = await kept.readuntil(b"}")
        it.stop.set()
        await asyncio.sleep(0)
        writer.write(b"GET /static/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n")
        after = await asyncio.wait_for(kept.read(), 5)
        ready = await raw(it.port, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        alive = await raw(it.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        was_ended = it.ended.done()
        await it.ended
        writer.close()

        assert b"Connection: close" not in before
        assert b"Connection: close" in after
        assert (b" 503 " in ready, b'{"status": "stopping"}' in ready) == (True, True)
        assert (b" 200 " in alive, b"Connection: close" in alive, was_ended) == (True, True, False)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", it.port)


@pytest.mark.gen_test
async def test_a_shutdown_waits_for_a_body(site: Site) -> None:
    """A request whose body is still coming has begun, so it is answered."""  # H10
    async with running(site) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(
            b"PATCH /session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 8\r\n\r\n{"a"'
        )
        while not it.server._connections._phases[Phase.RECEIVING]:  # noqa: ASYNC110  the server's own turns
            await asyncio.sleep(0.001)
        it.stop.set()
        await asyncio.sleep(0.05)
        writer.write(b": 1}")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()

    assert b" 200 OK" in answer


@pytest.mark.gen_test
async def test_a_shutdown_gives_up_on_what_never_ends(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A store call that hangs is waited for as long as is fair, and then said to be given up."""
    monkeypatch.setattr(stormcellar.runtime.server, "DRAIN_S", 0.05)
    async with running(site) as it:
        gate = it.store.gate("ping")
        asking = asyncio.ensure_future(it.browser.get("/readyz"))
        await gate.reached()
        with caplog.at_level(logging.WARNING, "stormcellar"):
            it.stop.set()
            await asyncio.wait_for(it.ended, 10)

        assert "could not finish the requests in flight" in caplog.text
        assert it.store.is_closed
        gate.open()
        with pytest.raises(HTTPStreamClosedError):
            await asking


@pytest.mark.gen_test
async def test_a_shutdown_waits_until_an_answer_was_read(site: Site) -> None:
    """An answer that a slow client is still reading is not cut short."""
    async with running(site) as it:
        await it.browser.json("PATCH", "/session", {"a": "\1" * 10_000})
        cookie = f"id={it.browser.cookies['id']}".encode()
        request = b"GET /session HTTP/1.1\r\nHost: localhost\r\nCookie: " + cookie + b"\r\n\r\n"
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect(("127.0.0.1", it.port))
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            # More answers than the system buffers hold, so that one of them must wait for its reader.
            await loop.sock_sendall(client, request * 100)
            await has_stalled(it.server.context.in_flight)
            it.stop.set()
            read = b""
            while chunk := await asyncio.wait_for(loop.sock_recv(client, 65_536), 10):
                read += chunk

    assert read.endswith(b"}")


async def has_stalled(in_flight: InFlight) -> None:
    """Wait until an answer has been in flight for a while: nothing more fits into the system's buffers."""
    for _ in range(1000):
        before, since = in_flight.count, 0
        while in_flight.count == before == 1 and since < 20:
            await asyncio.sleep(0.005)
            since += 1
        if since == 20:
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the client was never slow enough")

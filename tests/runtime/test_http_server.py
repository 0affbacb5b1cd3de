"""The limits on connections, on real sockets: a server that is full still answers, and does not spin."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network

import pytest
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from stormcellar.addresses import Network
from stormcellar.runtime import connections
from stormcellar.runtime.connections import ConnectionLimits, Connections, Phase
from stormcellar.runtime.http_server import LimitedServer
from tests.support.fakes import Clock

ASKED = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BEGUN = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"


class Hello(RequestHandler):
    """Answers every request."""

    def get(self) -> None:
        """Answer GET."""
        self.write("hello")

    post = get


class Limited:
    """A server with few connections, and a clock that is moved."""

    def __init__(self, most: int, per_address: int = 1000, uncounted: tuple[Network, ...] = ()) -> None:
        self.clock = Clock()
        self.connections = Connections(ConnectionLimits(most, per_address), clock=self.clock)
        self.http = LimitedServer(
            Application([("/", Hello)], log_function=lambda _: None),
            connections=self.connections,
            uncounted=uncounted,
        )
        [self.socket] = bind_sockets(0, "127.0.0.1")
        self.port = self.socket.getsockname()[1]
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self, sent: bytes = b"") -> asyncio.StreamReader:
        """Open a connection and send something."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        writer.write(sent)
        return reader

    async def count(self, number: int, phase: Phase | None = None) -> None:
        """Wait until so many connections are open, those of *phase* if it is given."""
        async with asyncio.timeout(10):
            while True:
                found = self.connections._phases if phase is None else [self.connections._phases[phase]]
                if sum(map(len, found)) == number:
                    return
                await asyncio.sleep(0.001)


@asynccontextmanager
async def limited(
    most: int, per_address: int = 1000, uncounted: tuple[Network, ...] = ()
) -> AsyncIterator[Limited]:
    """Serve, and close everything in the end."""
    it = Limited(most, per_address, uncounted)
    it.http.add_sockets([it.socket])
    try:
        yield it
    finally:
        it.http.stop()
        await it.http.close_all_connections()
        for writer in it.writers:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


async def answered(reader: asyncio.StreamReader) -> bool:
    """Whether there is a response, within a few seconds."""
    head = await asyncio.wait_for(reader.readline(), 5)
    return head == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.gen_test
@pytest.mark.parametrize(("sent", "seconds"), [(b"", 1), (b"GET / HTTP/1.1\r\n", 1), (BEGUN, 1)])
async def test_a_full_server_answers(sent: bytes, seconds: float) -> None:  # H2
    """Idle connections, slow heads and slow bodies make room for who sends a request."""
    async with limited(5) as it:
        silent = [await it.connect(sent) for _ in range(5)]
        await it.count(5, Phase.RECEIVING if sent == BEGUN else Phase.WAITING)
        it.clock.advance(seconds)
        asking = await it.connect(ASKED)

        assert await answered(asking)
        assert len(it.connections) == 5
        assert await asyncio.wait_for(silent[0].read(), 5) == b""


@pytest.mark.gen_test
async def test_accepting_pauses_and_goes_on() -> None:  # H2
    """As long as none can be closed a new connection waits in the queue of the system; then it is served."""
    async with limited(2) as it:
        for _ in range(2):
            await it.connect()
        await it.count(2)
        asking = await it.connect(ASKED)
        waiting = asyncio.ensure_future(answered(asking))
        await asyncio.sleep(0.05)
        was_done = waiting.done()
        it.writers[0].close()

        assert (was_done, await waiting) == (False, True)


@pytest.mark.gen_test
async def test_one_address_cannot_take_all() -> None:  # H2
    """Above its limit its own oldest connection is closed, and with none to close the new one."""
    async with limited(100, per_address=2) as it:
        first, _ = await it.connect(), await it.connect()
        await it.count(2)
        refused = await it.connect(ASKED)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(refused.readexactly(1), 5)
        it.clock.advance(1)
        accepted = await it.connect(ASKED)

        assert await answered(accepted)
        assert await asyncio.wait_for(first.read(), 5) == b""


@pytest.mark.gen_test
async def test_a_proxy_may_take_all() -> None:
    """A peer in the networks of proxies has no limit of its own."""
    async with limited(100, per_address=1, uncounted=(ip_network("127.0.0.0/8"),)) as it:
        for _ in range(10):
            await it.connect()
        await it.count(10)


class Exhausted(socket.socket):
    """A listening socket whose accept() finds no descriptor as long as there are connections."""

    connections: Connections
    tries = 0

    def accept(self) -> tuple[socket.socket, object]:
        """Raise EMFILE, as the system does if a process has all descriptors that it may have."""
        self.tries += 1
        if len(self.connections) >= 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@pytest.mark.gen_test
async def test_no_descriptors_left(caplog: pytest.LogCaptureFixture) -> None:  # H2 H8
    """The loop does not spin, the log has one line, and an idle connection is closed for the new one."""
    it = Limited(100)
    listening = Exhausted(fileno=it.socket.detach())
    listening.connections = it.connections
    listening.setblocking(False)
    it.http.add_sockets([listening])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            await it.connect()
        await it.count(2)
        asking = await it.connect(ASKED)
        await asyncio.sleep(0.3)
        tries = listening.tries
        it.clock.advance(1)
        is_answered = await answered(asking)
    it.http.stop()
    await it.http.close_all_connections()
    for writer in it.writers:
        writer.transport.abort()

    assert is_answered
    assert tries < 10
    assert [record.getMessage() for record in caplog.records] == [
        "cannot accept a connection: Too many open files; the longest idle ones are closed, else new ones "
        "wait until one ends"
    ]


@pytest.mark.gen_test
async def test_a_response_is_counted_until_it_is_sent() -> None:
    """A kept connection waits again after its response; one that ends is no longer counted."""
    async with limited(5) as it:
        kept = await it.connect(ASKED)
        assert await answered(kept)
        await it.count(1, Phase.WAITING)
        it.writers[0].close()
        await it.count(0)


@pytest.mark.gen_test
async def test_client_that_never_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The response that it does not take is given up after a while."""
    monkeypatch.setattr(connections, "LONGEST_ANSWER_S", 1.0)
    monkeypatch.setattr(Hello, "get", lambda self: self.write("x" * 20_000_000))
    async with limited(5) as it:
        await it.connect(ASKED)
        await it.count(1, Phase.ANSWERING)
        it.clock.advance(1)

        await it.count(0)

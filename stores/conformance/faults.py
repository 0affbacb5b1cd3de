"""Faults of the network between a store and its backend, and what a store must do then."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Self

import pytest

from stormcellar.stores import open_store
from stormcellar.stores.base import Store
from stormcellar.stores.conformance.cases import HOUR, NOW, created, loaded, new_user
from stormcellar.stores.conformance.opening import PREFIX, Loop, OpenedContract
from stormcellar.stores.errors import StoreUnavailable
from stormcellar.stores.records import Delta, Record


class Network:
    """A network between a program and a server on loopback, which stalls, breaks, delays and loses.

    An async context manager; connect to `port` while it is open.

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
        self.breaks_next_reply = False
        """The same, once: it becomes False then."""
        self.target_port = target_port
        self._flows = _open_gate()
        self._flows_from: defaultdict[str, asyncio.Event] = defaultdict(_open_gate)
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Refuse new connections, and end the open ones."""
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
            if is_reply and (self.breaks_replies or self.breaks_next_reply):
                self.breaks_next_reply = False
                writer.write(chunk[: len(chunk) // 2])
                await writer.drain()
                return
            writer.write(chunk)
            await writer.drain()


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


TIMEOUT_S = 1.0
"""Of the store under test."""
LATE_S = 10.0
"""How long a store may take until it works again."""


class FaultsContract(OpenedContract):
    """Tests of a store whose backend is on a TCP port of loopback.

    Override the fixture `backend_port`, and `url_at`.
    """

    @pytest.fixture
    def backend_port(self) -> int:
        """Return the port of the backend."""
        pytest.fail("override the fixture `backend_port`")

    def url_at(self, port: int) -> str:
        """Return the URL of the store for a backend on this *port*."""
        pytest.fail(f"override `url_at`, which returns the URL for port {port}")

    @pytest.fixture
    def network(self, io_loop: Loop, backend_port: int) -> Iterator[Network]:
        """Return the network between the store and its backend."""
        network = Network(backend_port)
        io_loop.run_sync(network.accept)
        yield network
        io_loop.run_sync(network.aclose)

    @pytest.fixture
    def store(self, io_loop: Loop, network: Network) -> Iterator[Store]:
        """Return the store, which has connected."""
        url = self.url_at(network.port)
        store = open_store(url, prefix=PREFIX, timeout_s=TIMEOUT_S, connect_timeout_s=TIMEOUT_S)
        io_loop.run_sync(store.ping)
        yield store
        network.resume()
        io_loop.run_sync(store.aclose)

    async def test_every_call_ends_in_time_without_an_answer(self, store: Store, network: Network) -> None:
        """While the network stalls each operation raises StoreUnavailable, soon after the time-out."""
        record = await created(store, user=new_user())
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.load(record.credential, now_ms=NOW),
            lambda: store.find(record.handle, now_ms=NOW),
            lambda: store.apply(record.credential, Delta(), now_ms=NOW, expires_ms=NOW + HOUR),
            lambda: store.of_user(str(record.user), now_ms=NOW),
            lambda: store.destroy(record.handle, now_ms=NOW),
            lambda: created(store),
            store.ping,
        ]
        network.stall()
        for call in calls:
            async with asyncio.timeout(2 * TIMEOUT_S + 1):
                with pytest.raises(StoreUnavailable):
                    await call()

    async def test_answers_that_are_late_reach_nobody_else(self, store: Store, network: Network) -> None:
        """After a stall each call gets its own answer, not that of one that was given up."""
        records = [await created(store, data={"n": b"%d" % number}) for number in range(8)]
        network.stall()
        waiting = [store.load(each.credential, now_ms=NOW) for each in records]
        given_up = await asyncio.gather(*waiting, return_exceptions=True)
        network.resume()
        await _answers(store)

        assert {type(each) for each in given_up} == {StoreUnavailable}
        for _ in range(3):
            found = await asyncio.gather(*(loaded(store, each.credential) for each in reversed(records)))
            assert found == records[::-1]

    @pytest.mark.parametrize("is_refused", [False, True])
    async def test_it_works_again_after_lost_connections(
        self, store: Store, network: Network, is_refused: bool
    ) -> None:
        """Also where the backend refuses connections for a while, as during its restart."""
        record = await created(store)
        if is_refused:
            await network.refuse()
        network.cut()
        if is_refused:
            with pytest.raises(StoreUnavailable):
                await store.load(record.credential, now_ms=NOW)
            await network.accept()
        await _answers(store)

        assert await loaded(store, record.credential) == record

    async def test_a_write_without_a_reply_is_not_repeated(self, store: Store, network: Network) -> None:
        """It raises StoreUnavailable: the outcome is unknown. A repeated write would return CONFLICT."""
        for number in range(5):
            record = await created(store, data={"n": b"0"})
            once = Delta(put={"n": b"1"}, expect={"n": b"0"})
            network.breaks_next_reply = True
            with pytest.raises(StoreUnavailable):
                await store.apply(record.credential, once, now_ms=NOW, expires_ms=None)
            network.breaks_next_reply = False
            await _answers(store)

            assert (await loaded(store, record.credential)).data["n"] in (b"0", b"1"), number

    async def test_an_end_without_a_reply_can_be_repeated(self, store: Store, network: Network) -> None:
        """The first one raises StoreUnavailable; after the second one the session is over."""
        record = await created(store)
        network.breaks_next_reply = True
        with pytest.raises(StoreUnavailable):
            await store.destroy(record.handle, now_ms=NOW)
        network.breaks_next_reply = False
        await _answers(store)
        await store.destroy(record.handle, now_ms=NOW)

        assert not isinstance(await store.load(record.credential, now_ms=NOW), Record)


async def _answers(store: Store) -> None:
    """Wait until *store* answers again."""
    async with asyncio.timeout(LATE_S):
        while True:
            with suppress(StoreUnavailable):
                return await store.ping()
            await asyncio.sleep(0.05)

"""The push of ended sessions over MongoDB: in elections, without its history, in a frozen process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pymongo
import pytest

from stormcellar.stores import Credential, StoreUnavailable
from stormcellar.stores.conformance.cases import NOW, created, living
from stormcellar.stores.mongo import MongoStore
from stormcellar.stores.mongo.client import collection_name
from tests.conftest import StartServer
from tests.stores.mongo.samples import Document, failing, store_at
from tests.support.backends import Backend, Server
from tests.support.replica_set import ReplicaSet, command

HEARD_S = 15.0
"""How long an end may take to be known: after a while without a server, the listener tries every 5 s."""
CHANGE_STREAM_HISTORY_LOST = 286


@pytest.fixture(scope="module")
def replica_set(mongo: Backend) -> Iterator[ReplicaSet]:
    """Three members."""
    with ReplicaSet(election_timeout_s=2.0) as replicas:
        replicas.wait_until_whole()
        yield replicas


class Listener:
    """Confirms what it holds when it is told to, as a server with open sockets does."""

    def __init__(self, store: MongoStore) -> None:
        self._store = store
        self.held: set[Credential] = set()
        self.gaps = 0
        """How often the store said that it may have missed an end."""

    async def listen(self) -> None:
        """Forget each session that has ended, as far as the announcements tell."""
        async with aclosing(self._store.gone()) as handles:
            async for handle in handles:
                self.gaps += handle is None
                asked = {each for each in self.held if handle in (None, each.handle)}
                self.held -= asked - await self._living(asked)

    async def _living(self, asked: set[Credential]) -> set[Credential]:
        return await eventually(lambda: living(self._store, asked, now_ms=NOW))


@asynccontextmanager
async def listening(store: MongoStore) -> AsyncIterator[Listener]:
    """Listen until the block ends."""
    listener = Listener(store)
    task = asyncio.ensure_future(listener.listen())
    try:
        await until(lambda: listener.gaps == 1)
        yield listener
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """Await *attempt* until the store answers."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await attempt()
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until *holds*, at most `HEARD_S`."""
    async with asyncio.timeout(HEARD_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def step_down(replicas: ReplicaSet, primary: Server) -> None:
    """Have the primary make room for another."""
    command(primary, "replSetStepDown", 10, force=True)
    replicas.writable(but=primary)


def kill(replicas: ReplicaSet, primary: Server) -> None:
    """Kill the primary, and start it again when there is another one."""
    primary.kill()
    replicas.writable(but=primary)
    primary.start()


def freeze(replicas: ReplicaSet, primary: Server) -> None:
    """Freeze the primary until there is another one: the stream's connection stays open, and is silent."""
    primary.pause()
    replicas.writable(but=primary)
    primary.resume()


@pytest.mark.gen_test(timeout=120)
@pytest.mark.parametrize("fault", [step_down, kill, freeze])
async def test_no_end_is_lost_in_an_election(replica_set: ReplicaSet, prefix: str, fault: Any) -> None:
    """What ends before, during and after it is announced, or a gap is; what lives is not."""
    replica_set.wait_until_whole()
    async with (
        store_at(replica_set.url, timeout_s=1.0, prefix=prefix) as store,
        store_at(replica_set.url, timeout_s=1.0, prefix=prefix) as other,
        listening(store) as listener,
    ):
        records = [await eventually(lambda: created(other)) for _ in range(60)]
        listener.held = {record.credential for record in records}
        primary = await asyncio.to_thread(replica_set.primary)
        failing = asyncio.ensure_future(asyncio.to_thread(fault, replica_set, primary))
        for record in records[:40]:
            await eventually(lambda handle=record.handle: other.destroy(handle, now_ms=NOW))
            await asyncio.sleep(0.05)
        await failing
        for record in records[40:50]:
            await eventually(lambda handle=record.handle: other.destroy(handle, now_ms=NOW))

        lives = {record.credential for record in records[50:]}
        await until(lambda: listener.held <= lives)
        assert listener.held == lives


@pytest.mark.gen_test(timeout=60)
async def test_stream_begins_anew_where_the_history_is_lost(start_server: StartServer) -> None:
    """None comes, also if the server could not be reached when the driver first tried to resume."""
    server = start_server("mongo_rs", extra=["--setParameter", "enableTestCommands=1"])
    async with store_at(server.url, timeout_s=1.0) as store, listening(store) as listener:
        with failing(server, "getMore", "aggregate", closeConnection=True):
            await asyncio.sleep(1.0)
        with failing(server, "aggregate", errorCode=CHANGE_STREAM_HISTORY_LOST):
            await asyncio.sleep(1.5)
        await until(lambda: listener.gaps == 2)
        record = await eventually(lambda: created(store))
        listener.held = {record.credential}
        await eventually(lambda: store.destroy(record.handle, now_ms=NOW))

        await until(lambda: not listener.held)


@pytest.mark.gen_test(timeout=60)
async def test_end_during_a_freeze_of_the_listener_is_announced(mongo_rs: Backend, prefix: str) -> None:
    """A process that is stopped longer than its time-outs hears afterwards what ended meanwhile."""
    client: pymongo.MongoClient[Document]
    async with store_at(mongo_rs.url, timeout_s=0.4, prefix=prefix) as store, listening(store) as listener:
        with pymongo.MongoClient(mongo_rs.url) as client:
            sessions = client.stormcellar[collection_name(prefix)]
            for round_ in range(4):
                record = await created(store)
                listener.held = {record.credential}
                await asyncio.sleep(round_ * 0.05)

                # As SIGSTOP does: the announcement comes, and every time-out passes, while nothing runs here.
                sessions.delete_one({"_id": record.handle})
                time.sleep(0.8)  # noqa: ASYNC251

                await until(lambda: not listener.held)

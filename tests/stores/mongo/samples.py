"""What the tests of MongoDB share: stores, the documents behind them, and the commands that a proxy saw."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pymongo
from pymongo.collection import Collection

from stormcellar.stores import (
    Delta,
    Record,
    StoreOptions,
)
from stormcellar.stores.conformance.cases import NOW, living, new_record, new_verifier, rotated
from stormcellar.stores.mongo import MongoStore
from tests.support.backends import Backend, Server
from tests.support.proxy import DroppingProxy

Document = dict[str, Any]
Stored = Collection[Document]
Call = Callable[[MongoStore, Record], Awaitable[object]]

MUTATIONS: dict[str, tuple[bytes, Call]] = {
    "create": (b"insert", lambda store, record: store.create(new_record(user=record.user))),
    "apply": (
        b"update",
        lambda store, record: store.apply(
            record.credential, Delta(put={"n": b"1"}, expect={"n": b"0"}), now_ms=NOW, expires_ms=None
        ),
    ),
    "rotate": (b"update", lambda store, record: rotated(store, record.credential, new_verifier())),
    "destroy": (b"update", lambda store, record: store.destroy(record.handle, now_ms=NOW)),
}
READS: dict[str, Call] = {
    "load": lambda store, record: store.load(record.credential, now_ms=NOW),
    "find": lambda store, record: store.find(record.handle, now_ms=NOW),
    "states": lambda store, record: living(store, [record.credential], now_ms=NOW),
    "of_user": lambda store, record: store.of_user(str(record.user), now_ms=NOW),
}


def as_date(ms: int) -> datetime:
    """Return the time that MongoDB shows for *ms*."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def is_command(name: bytes) -> Callable[[bytes], bool]:
    """Return a predicate for the wire messages that run the command *name*."""
    return lambda request: b"\x02" + name + b"\x00" in request


def command_in(request: bytes) -> dict[str, Any]:
    """Return the command in a wire message: after 16 bytes of header, 4 of flags and 1 of kind."""
    size = int.from_bytes(request[21:25], "little")
    decoded: dict[str, Any] = bson.decode(request[21 : 21 + size])
    return decoded


def sent(proxy: DroppingProxy, name: bytes) -> list[dict[str, Any]]:
    """Return every command *name* that *proxy* saw."""
    return [command_in(request) for request in proxy.requests if is_command(name)(request)]


@asynccontextmanager
async def store_at(url: str, *, timeout_s: float = 5.0, prefix: str = "") -> AsyncIterator[MongoStore]:
    """Open a store under a prefix of its own, and close it."""
    store = MongoStore.from_url(url, StoreOptions(prefix or secrets.token_hex(6), timeout_s=timeout_s))
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def through_proxy(
    backend: Backend, options: str = ""
) -> AsyncIterator[tuple[MongoStore, DroppingProxy]]:
    """Open a store that reaches *backend* by way of a proxy and no other."""
    async with DroppingProxy(backend.port, protocol="mongo") as proxy:
        # As for a URL that names the replica set, which would lead past the proxy.
        retries = "true" if backend.name == "mongo_rs" else "false"
        options = f"directConnection=true&retryWrites={retries}{options}"
        url = f"mongodb://127.0.0.1:{proxy.port}/stormcellar?{options}"
        async with store_at(url) as store:
            yield store, proxy


async def begun(listener: AsyncIterator[Any]) -> None:
    """Return once *listener* listens."""
    assert await anext(listener) is None


@contextmanager
def failing(server: Server, *commands: str, **how: Any) -> Iterator[None]:
    """Make *server*, which runs with test commands, fail each of *commands* within the block."""
    client: pymongo.MongoClient[Document]
    with pymongo.MongoClient(server.url) as client:
        data = {"failCommands": commands, **how}
        client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
        try:
            yield
        finally:
            client.admin.command("configureFailPoint", "failCommand", mode="off")

"""The contract on MongoDB, standalone and as a replica set, and the facts of what MongoDB holds."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import aclosing

import bson
import pymongo
import pytest
from tornado.ioloop import IOLoop

from stormcellar.stores import Credential, StoreOptions, Verifier, open_store
from stormcellar.stores.conformance import StoreContract
from stormcellar.stores.conformance.cases import (
    HOUR,
    MINUTE,
    NOTHING,
    NOW,
    created,
    created_many,
    handles,
    living,
    new_record,
    new_user,
    new_verifier,
    rotated,
    scanned,
)
from stormcellar.stores.mongo.client import collection_name
from stormcellar.stores.mongo.store import PAGE, MongoStore
from tests.stores.mongo.samples import (
    Document,
    Stored,
    as_date,
    begun,
    store_at,
)
from tests.support.backends import Backend


def opened(backend: Backend, io_loop: IOLoop) -> Iterator[MongoStore]:
    """Open a store that is ready, and close it."""
    store = MongoStore.from_url(backend.url, StoreOptions("contract", timeout_s=10.0))
    io_loop.run_sync(store.ping)
    yield store
    io_loop.run_sync(store.aclose)


class TestStandalone(StoreContract):
    announces = False

    @pytest.fixture
    def store_url(self, mongo: Backend) -> str:
        """The URL of a standalone server, which has no change streams."""
        return mongo.url


class TestReplicaSet(StoreContract):
    @pytest.fixture
    def store_url(self, mongo_rs: Backend) -> str:
        """The URL of a replica set."""
        return mongo_rs.url


@pytest.mark.gen_test
async def test_every_write_sets_the_date_the_ttl_index_reads(store: MongoStore, stored: Stored) -> None:
    """After create, apply and rotate the document's date is the record's expiry, to the millisecond."""  # G6
    record = await created(store, expires_ms=NOW + HOUR + 7)
    seen = [stored.find_one()]
    await store.apply(record.credential, NOTHING, now_ms=NOW, expires_ms=NOW + 2 * HOUR + 3)
    seen.append(stored.find_one())
    await rotated(store, record.credential, new_verifier(), expires_ms=NOW + MINUTE + 1)
    seen.append(stored.find_one())

    dates = [document["expires"] for document in seen if document]
    assert dates == [as_date(NOW + HOUR + 7), as_date(NOW + 2 * HOUR + 3), as_date(NOW + MINUTE + 1)]


@pytest.mark.gen_test
async def test_indexes_are_made_by_the_first_create(store: MongoStore, stored: Stored) -> None:
    """Without a ping too, expiry has a TTL index with an hour's slack, and user a sparse one."""
    record = await created(store)

    indexes = stored.index_information()
    assert indexes["expires"]["key"] == [("expires", 1)]
    assert indexes["expires"]["expireAfterSeconds"] == 3600
    assert indexes["user"]["key"] == [("user", 1)]
    assert indexes["user"]["sparse"] is True
    assert "user" not in (stored.find_one({"_id": record.handle}) or {"user": "no document"})


@pytest.mark.gen_test
async def test_first_writes_race_the_making_of_indexes(backend: Backend, prefix: str, stored: Stored) -> None:
    """Many stores that write first into a new collection at once all succeed."""
    stores = [MongoStore.from_url(backend.url, StoreOptions(prefix, timeout_s=10.0)) for _ in range(8)]

    records = await asyncio.gather(*(created(store) for store in stores for _ in range(3)))

    assert stored.count_documents({}) == len(records) == 24
    assert set(stored.index_information()) == {"_id_", "expires", "user"}
    await asyncio.gather(*(store.aclose() for store in stores))


@pytest.mark.gen_test
async def test_listing_and_scan_go_by_indexes_that_do_not_move(store: MongoStore, stored: Stored) -> None:
    """A user's sessions are found by the index on user, and a scan goes by `_id`, never by the expiry."""
    user = new_user()
    await created_many(store, [new_record(user=user) for _ in range(3)])

    stored.database.command("profile", 2)
    try:
        found = await store.of_user(user, now_ms=NOW)
        await scanned(store)
    finally:
        stored.database.command("profile", 0)
    log = stored.database["system.profile"].find({"ns": stored.full_name, "op": "query"})
    plans = [entry["planSummary"] for entry in log]

    assert len(found) == 3
    assert plans == ["IXSCAN { user: 1 }", "IXSCAN { _id: 1 }"]


@pytest.mark.gen_test
async def test_dump_holds_no_secret(store: MongoStore, stored: Stored) -> None:
    """What MongoDB keeps of a session ID is the handle and a hash, from which no cookie can be made."""  # G1
    kept = [secrets.token_urlsafe(32) for _ in range(3)]
    first, second, third = (
        Verifier(base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()).rstrip(b"=").decode())
        for secret in kept
    )
    record = await created(store, verifier=first)
    await rotated(store, record.credential, second, user="alice", grace_ms=MINUTE)
    await rotated(store, Credential(record.handle, second), third, user="alice")

    dump = b"".join(bson.encode(document) for document in stored.find())
    assert third.encode() in dump
    assert first.encode() not in dump
    for secret in kept:
        assert secret.encode() not in dump


@pytest.mark.gen_test(timeout=60)
async def test_reads_beyond_a_page_are_whole(store: MongoStore) -> None:
    """More sessions than a batch holds are listed, scanned and found alive, each once."""
    user = new_user()
    records = [new_record(user=user) for _ in range(2 * PAGE + 1)]
    await created_many(store, records)
    await store.destroy(records[0].handle, now_ms=NOW)
    expected = handles(records[1:])

    assert handles(await store.of_user(user, now_ms=NOW)) == expected
    assert sorted([record.handle async for record in store.scan(now_ms=NOW)]) == expected
    found = await living(store, [record.credential for record in records], now_ms=NOW)
    assert sorted(credential.handle for credential in found) == expected


@pytest.mark.gen_test(timeout=60)
async def test_requests_in_parallel_wait_for_a_connection(store: MongoStore) -> None:
    """From a cold start 160 calls at a time all succeed, though the pool holds fewer connections."""
    records = [new_record() for _ in range(160)]

    await asyncio.gather(*map(store.create, records))
    found = await asyncio.gather(*(store.load(record.credential, now_ms=NOW) for record in records))

    assert found == records


@pytest.mark.gen_test(timeout=60)
async def test_rotation_logged_as_a_replacement_is_announced(mongo_rs: Backend, prefix: str) -> None:
    """A sign-in after a renewal changes so much that the server logs the whole document; it is told too."""
    client: pymongo.MongoClient[Document]
    async with store_at(mongo_rs.url, prefix=prefix) as store, aclosing(store.gone()) as listener:
        await begun(listener)
        renewed, signed_in = await created(store), await created(store)
        second = Credential(signed_in.handle, new_verifier())

        with (
            pymongo.MongoClient(mongo_rs.url) as client,
            client.stormcellar[collection_name(prefix)].watch() as events,
        ):
            await rotated(store, renewed.credential, new_verifier(), grace_ms=MINUTE)
            await rotated(store, signed_in.credential, second.verifier, now_ms=NOW + 1, grace_ms=MINUTE)
            sign_in = {"user": new_user(), "auth_ms": NOW, "client": b"new", "keep": frozenset()}
            await rotated(store, second, new_verifier(), now_ms=NOW + 2, **sign_in)
            logged = [events.next()["operationType"] for _ in range(3)]
        told = []
        while signed_in.handle not in told:
            told.append(await anext(listener))

        assert logged == ["update", "update", "replace"]
        assert renewed.handle not in told
        assert told.count(signed_in.handle) == 1


def test_store_is_made_without_a_loop_or_a_server() -> None:
    """Making a store does no I/O: nothing need listen, and no event loop need run."""
    store = open_store("mongodb://127.0.0.1:1/")

    assert isinstance(store, MongoStore)


@pytest.mark.gen_test
async def test_database_comes_from_the_path(mongo: Backend, stored_in: Callable[[str], int]) -> None:
    """The path names the database; without one it is `stormcellar`."""
    name = f"db-{secrets.token_hex(4)}"
    host = f"mongodb://127.0.0.1:{mongo.port}"
    named, unnamed = open_store(f"{host}/{name}", prefix=name), open_store(host, prefix=name)
    await asyncio.gather(created(named), created(named), created(unnamed))

    assert (stored_in(f"{name}/{name}"), stored_in(f"stormcellar/{name}")) == (2, 1)
    await asyncio.gather(named.aclose(), unnamed.aclose())


@pytest.fixture
def stored_in(mongo: Backend) -> Iterator[Callable[[str], int]]:
    """Count the documents of `database/prefix`."""
    client: pymongo.MongoClient[Document]
    with pymongo.MongoClient(mongo.url) as client:

        def count(place: str) -> int:
            database, _, prefix = place.partition("/")
            return client[database][collection_name(prefix)].count_documents({})

        yield count

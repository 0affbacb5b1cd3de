"""Tombstones in MongoDB: what the document holds, when it leaves, and how it is announced."""

from __future__ import annotations

import time
from contextlib import aclosing

import pymongo
import pytest
from bson.datetime_ms import DatetimeMS

from stormcellar.stores import TOMBSTONE_MS, Credential
from stormcellar.stores.conformance.cases import (
    ENDED,
    MINUTE,
    NOW,
    UNKNOWN,
    created,
    living,
    loaded,
    new_user,
    new_verifier,
    rotated,
)
from stormcellar.stores.mongo import MongoStore
from stormcellar.stores.mongo.client import collection_name
from tests.conftest import StartServer
from tests.stores.mongo.samples import Document, Stored, as_date, begun, failing, store_at
from tests.support.backends import Backend


@pytest.mark.gen_test
async def test_tombstone_is_the_time_and_leaves_after_ten_minutes(store: MongoStore, stored: Stored) -> None:
    """The TTL index removes it ten minutes from now by the server's clock, whatever the caller's is."""
    record = await created(store, user=new_user(), data={"a": b"private"})

    await store.destroy(record.handle, now_ms=NOW - 90 * MINUTE)
    first = stored.find_one()
    await store.destroy(record.handle, now_ms=NOW)

    slack_s = stored.index_information()["expires"]["expireAfterSeconds"]
    assert first is not None
    left_s = first.pop("expires").timestamp() + slack_s - time.time()
    assert TOMBSTONE_MS / 1000 - 10 < left_s <= TOMBSTONE_MS / 1000
    assert first == {"_id": record.handle, "ended": as_date(NOW - 90 * MINUTE)}
    assert stored.count_documents({"ended": first["ended"]}) == 1


@pytest.mark.gen_test(timeout=60)
async def test_destroy_is_announced_once_however_it_is_logged(mongo_rs: Backend, prefix: str) -> None:
    """As a change of a large document and as the replacement of a small one; a second destroy is not."""
    client: pymongo.MongoClient[Document]
    async with store_at(mongo_rs.url, prefix=prefix) as store, aclosing(store.gone()) as listener:
        await begun(listener)
        small = await created(store, data={})
        renewed = await created(store, data={"a": b"x" * 1000})
        second = Credential(renewed.handle, new_verifier())
        await rotated(store, renewed.credential, second.verifier, grace_ms=MINUTE)

        with (
            pymongo.MongoClient(mongo_rs.url) as client,
            client.stormcellar[collection_name(prefix)].watch() as events,
        ):
            for record in (small, renewed, renewed, small):
                await store.destroy(record.handle, now_ms=NOW)
            last = await created(store)
            await store.destroy(last.handle, now_ms=NOW)
            logged = {events.next()["operationType"] for _ in range(4)}
        told = []
        while last.handle not in told:
            told.append(await anext(listener))

        assert logged <= {"update", "replace", "insert"}
        assert [told.count(record.handle) for record in (small, renewed)] == [1, 1]


@pytest.mark.gen_test(timeout=60)
async def test_full_server_leaves_no_tombstone_and_announces(start_server: StartServer) -> None:
    """Where nothing can be written, destroy removes the document, says so once, and is announced."""
    server = start_server("mongo_rs", extra=["--setParameter", "enableTestCommands=1"])
    async with store_at(server.url) as store, aclosing(store.gone()) as listener:
        await begun(listener)
        record, ended = await created(store), await created(store)
        await store.destroy(ended.handle, now_ms=NOW)

        with failing(server, "update", errorCode=14031):
            answers = [await store.destroy(each.handle, now_ms=NOW) for each in (record, record, ended)]
        told = []
        while record.handle not in told:
            told.append(await anext(listener))

        assert answers == [True, False, False]
        assert await store.load(record.credential, now_ms=NOW) == UNKNOWN
        assert await store.load(ended.credential, now_ms=NOW) == ENDED


@pytest.mark.gen_test
@pytest.mark.parametrize("time_ms", [-1, 253_402_300_800_000])
@pytest.mark.parametrize("field", ["created", "rotated", "auth", "seen", "expires", "deadline"])
async def test_document_with_a_time_that_no_calendar_has_is_no_session(
    store: MongoStore, stored: Stored, field: str, time_ms: int
) -> None:
    """Somebody who writes to MongoDB makes no session that pages cannot show; nothing lists it."""
    user = new_user()
    record, other = await created(store, user=user, auth_ms=NOW), await created(store, user=user)
    stored.update_one({"_id": record.handle}, {"$set": {field: DatetimeMS(time_ms)}})

    assert await store.load(record.credential, now_ms=NOW) == UNKNOWN
    assert await store.find(record.handle, now_ms=NOW) is None
    assert [each.handle for each in await store.of_user(user, now_ms=NOW)] == [other.handle]
    assert await living(store, [record.credential, other.credential], now_ms=NOW) == {other.credential}
    assert [each.handle async for each in store.scan(now_ms=NOW)] == [other.handle]
    assert await store.destroy(record.handle, now_ms=NOW) is True
    assert await loaded(store, other.credential) == other

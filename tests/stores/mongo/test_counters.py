"""What MongoDB holds of a tally, and what the counters do when MongoDB fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pymongo
import pytest
from bson.int64 import Int64
from pymongo.errors import DuplicateKeyError

from stormcellar.stores import Counters, StoreOptions, StoreUnavailable, Tally
from stormcellar.stores.conformance.cases import (
    HOUR,
    NOW,
    ONE,
    SECOND,
    THREE,
    created,
    new_key,
    scanned,
    takes,
)
from stormcellar.stores.mongo import MongoStore
from tests.conftest import StartServer
from tests.stores.mongo.samples import Document, Stored, as_date, sent, store_at, through_proxy
from tests.support.backends import Backend

GIVEN = Tally(True, 1, 0)

CHANGES: dict[str, tuple[bytes, Callable[[Counters, str], Awaitable[object]]]] = {
    "take": (b"findAndModify", lambda counters, key: counters.take(key, THREE, now_ms=NOW)),
    "give_back": (b"update", lambda counters, key: counters.give_back(key, GIVEN, now_ms=NOW)),
    "forget": (b"delete", lambda counters, key: counters.forget(key)),
}


def tallies_of(stored: Stored) -> Stored:
    """Return the collection of tallies beside that of the sessions."""
    return stored.database[stored.name.removesuffix("_sessions") + "_counters"]


@pytest.mark.gen_test
async def test_tallies_have_a_collection_that_reaps_them(store: MongoStore, stored: Stored) -> None:
    """Beside the sessions, by a TTL index an hour late on the date when a tally is to be forgotten."""
    await store.counters().take("key", ONE, now_ms=NOW)

    found = tallies_of(stored).find_one()
    index = tallies_of(stored).index_information()["expires"]
    assert found == {
        "_id": "key",
        "count": 1,
        "next": as_date(NOW + 10 * SECOND),
        "expires": as_date(NOW + HOUR),
        "taken": True,
    }
    assert (index["key"], index["expireAfterSeconds"]) == ([("expires", 1)], 3600)
    assert await scanned(store) == {}


@pytest.mark.gen_test
async def test_ping_makes_the_index_for_whoever_counts(store: MongoStore, stored: Stored) -> None:
    """The collection is made by a ping once the counters were asked for, and not before."""
    await store.ping()
    before = stored.database.list_collection_names(filter={"name": tallies_of(stored).name})
    store.counters()

    await store.ping()

    assert before == []
    assert set(tallies_of(stored).index_information()) == {"_id_", "expires"}


@pytest.mark.gen_test
async def test_first_takes_race_the_making_of_the_tally(backend: Backend, prefix: str) -> None:
    """Many processes that take the first one of a key at once lose none and fail nowhere."""  # D6
    stores = [MongoStore.from_url(backend.url, StoreOptions(prefix, timeout_s=10.0)) for _ in range(6)]
    for _ in range(5):
        key = new_key()
        tallies = await asyncio.gather(
            *(each.counters().take(key, THREE, now_ms=NOW) for each in stores for _ in range(4))
        )

        assert sorted(tally.count for tally in tallies if tally.taken) == [1, 2, 3]
    await asyncio.gather(*(each.aclose() for each in stores))


@pytest.mark.gen_test(timeout=60)
async def test_tally_that_another_inserts_is_taken_from_at_the_second_try(start_server: StartServer) -> None:
    """An insert that meets another's wrote nothing and is made again, once; then it is a fault."""  # D6
    server = start_server("mongo", extra=["--setParameter", "enableTestCommands=1"])
    client: pymongo.MongoClient[Document]
    duplicate = {"keyPattern": {"_id": 1}, "keyValue": {"_id": "key"}}
    async with store_at(server.url) as store:
        with pymongo.MongoClient(server.url) as client:
            answers = []
            for times in (1, 2):
                client.admin.command(
                    "configureFailPoint",
                    "failCommand",
                    mode={"times": times},
                    data={"failCommands": ["findAndModify"], "errorCode": 11000, "errorExtraInfo": duplicate},
                )
                [answer] = await asyncio.gather(
                    store.counters().take("key", THREE, now_ms=NOW), return_exceptions=True
                )
                answers.append(answer)

        assert answers[0] == Tally(True, 1, 0)
        assert type(answers[1]) is StoreUnavailable
        assert isinstance(answers[1].__cause__, DuplicateKeyError)
        assert await store.counters().peek("key", now_ms=NOW) == Tally(False, 1, 0)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "document",
    [
        {},
        {"count": 9},
        {"count": "many", "next": as_date(NOW), "expires": as_date(NOW + HOUR)},
        {"count": 9, "next": NOW, "expires": as_date(NOW + HOUR)},
        {"count": 9, "next": as_date(NOW), "expires": [as_date(NOW + HOUR)]},
        {"count": [9], "next": as_date(NOW), "expires": as_date(NOW + HOUR)},
    ],
    ids=["empty", "partial", "text", "number", "array", "count-array"],
)
async def test_what_is_no_tally_counts_as_none(store: MongoStore, stored: Stored, document: Document) -> None:
    """A document of another form is none, and gives way to the first one taken."""
    counters, key = store.counters(), new_key()
    tallies_of(stored).insert_one({"_id": key, **document})

    before = await counters.peek(key, now_ms=NOW)
    await counters.give_back(key, GIVEN, now_ms=NOW)
    taken = await takes(counters, key, 2)

    assert before == Tally(False, 0, 0)
    assert taken == [Tally(True, 1, 0), Tally(True, 2, 0)]


@pytest.mark.gen_test
async def test_numbers_of_any_width_are_counts(store: MongoStore, stored: Stored) -> None:
    """A count that another client widened to 64 bits goes on."""
    counters, key = store.counters(), new_key()
    await counters.take(key, THREE, now_ms=NOW)
    tallies_of(stored).update_one({"_id": key}, {"$set": {"count": Int64(2)}})

    assert await counters.peek(key, now_ms=NOW) == Tally(False, 2, 0)
    assert await counters.take(key, THREE, now_ms=NOW) == Tally(True, 3, NOW + 10 * SECOND)


@pytest.mark.gen_test(timeout=60)
async def test_frozen_or_dead_server_admits_nothing(start_server: StartServer) -> None:
    """Each call is StoreUnavailable while the server is silent, or the store closed."""  # E12, G13
    server = start_server("mongo")
    async with store_at(server.url, timeout_s=0.5) as store:
        counters = store.counters()
        await created(store)
        await counters.take("key", THREE, now_ms=NOW)
        server.pause()
        try:
            calls: list[Any] = [change(counters, "key") for _, change in CHANGES.values()]
            answers = await asyncio.gather(*calls, counters.peek("key", now_ms=NOW), return_exceptions=True)
        finally:
            server.resume()

    assert {type(answer) for answer in answers} == {StoreUnavailable}
    with pytest.raises(StoreUnavailable):
        await counters.take("key", THREE, now_ms=NOW)


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_whose_reply_is_lost_is_sent_once(mongo: Backend, name: str) -> None:
    """A standalone server sees one command, and the caller is told that the outcome is unknown."""
    command, change = CHANGES[name]
    async with through_proxy(mongo) as (store, proxy):
        counters, key = store.counters(), new_key()
        await takes(counters, key, 2)
        proxy.drop_replies(lambda request: key.encode() in request)
        before = len(sent(proxy, command))

        with pytest.raises(StoreUnavailable):
            await change(counters, key)

        assert len(sent(proxy, command)) - before == 1
        counts = {"take": 3, "give_back": 1, "forget": 0}
        assert (await counters.peek(key, now_ms=NOW)).count == counts[name]

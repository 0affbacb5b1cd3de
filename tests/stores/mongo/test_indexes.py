"""The indexes of the MongoDB store where a collection has some already."""

from __future__ import annotations

from typing import Any

import pymongo
import pytest

from stormcellar.stores import StoreRefused
from stormcellar.stores.conformance.cases import NOW, created, handles, loaded, new_user
from stormcellar.stores.counters import Rule
from stormcellar.stores.errors import problem_of
from stormcellar.stores.mongo import MongoStore
from stormcellar.stores.mongo.client import collection_name
from tests.conftest import StartServer
from tests.stores.mongo.samples import Stored, store_at

TTL = "expireAfterSeconds"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("before", "after"), [(0, 3600), (60, 3600), (3599, 3600), (3600, 3600), (7200, 7200)]
)
async def test_older_ttl_index_is_given_its_slack(
    store: MongoStore, stored: Stored, before: int, after: int
) -> None:
    """An index with less slack is changed, one with more stays, and the missing index is created."""
    stored.create_index([("expires", 1)], name="expires", expireAfterSeconds=before)

    await store.ping()

    indexes = stored.index_information()
    assert indexes["expires"][TTL] == after
    assert set(indexes) == {"_id_", "expires", "user"}


INDEXES: list[tuple[dict[str, Any], list[str]]] = [
    ({"name": "expires", "keys": [("deadline", 1)], TTL: 3600}, ["'expires'", "key"]),
    ({"name": "expires", "keys": [("expires", -1)], TTL: 3600}, ["'expires'", "key"]),
    ({"name": "expires", "keys": [("expires", 1)]}, ["'expires'", TTL]),
    ({"name": "expires", "keys": [("expires", 1)], TTL: 60, "sparse": True}, ["'expires'", "sparse"]),
    (
        {
            "name": "expires",
            "keys": [("expires", 1)],
            TTL: 60,
            "partialFilterExpression": {"user": {"$exists": True}},
        },
        ["'expires'", "partialFilterExpression"],
    ),
    ({"name": "by_expiry", "keys": [("expires", 1)]}, ["'by_expiry'", "name", TTL]),
    ({"name": "user", "keys": [("user", 1)]}, ["'user'", "sparse"]),
    ({"name": "user", "keys": [("user", 1)], "sparse": True, "unique": True}, ["'user'", "unique"]),
    ({"name": "user", "keys": [("verifier", 1)], "sparse": True}, ["'user'", "key"]),
]


@pytest.mark.gen_test
@pytest.mark.parametrize(("index", "words"), INDEXES, ids=range(len(INDEXES)))
async def test_index_that_is_not_ours_is_named(
    store: MongoStore, stored: Stored, index: dict[str, Any], words: list[str]
) -> None:
    """The error says which index of which collection differs in what, and that dropping it helps."""
    stored.create_index(**index)

    with pytest.raises(StoreRefused) as refused:
        await store.ping()
    with pytest.raises(StoreRefused):
        await created(store)

    message = str(problem_of(refused.value))
    assert message.startswith(f"the index {words[0]}")
    assert [word for word in [*words, stored.name, "drop it"] if word not in message] == []
    assert stored.count_documents({}) == 0
    stored.drop_index(index["name"])
    assert await loaded(store, (record := await created(store)).credential) == record


@pytest.mark.gen_test(timeout=60)
async def test_user_who_may_not_change_the_index_is_told_how(start_server: StartServer) -> None:
    """Without the right to collMod the error names the index and both numbers, and nothing is written."""
    server = start_server("mongo", extra=["--auth"])
    with pymongo.MongoClient("127.0.0.1", server.port) as admin:
        admin.admin.command("createUser", "root", pwd="root-pw", roles=["root"])
    login = {"username": "root", "password": "root-pw"}
    with pymongo.MongoClient("127.0.0.1", server.port, **login) as admin:
        name = collection_name("shared")
        rights = ["find", "insert", "update", "remove", "createIndex", "listIndexes"]
        place = {"resource": {"db": "stormcellar", "collection": name}, "actions": rights}
        admin.stormcellar.command("createRole", "few", privileges=[place], roles=[])
        admin.stormcellar.command("createUser", "app", pwd="app-pw", roles=["few"])
        admin.stormcellar[name].create_index([("expires", 1)], name="expires", expireAfterSeconds=60)

    url = f"mongodb://app:app-pw@127.0.0.1:{server.port}/stormcellar"
    async with store_at(url, prefix="shared") as store:
        with pytest.raises(StoreRefused, match="60 instead of 3600, and this user may not run collMod"):
            await created(store)
        assert [record async for record in store.scan(now_ms=NOW)] == []


@pytest.mark.parametrize("what", ["indexes", "collection"])
@pytest.mark.gen_test
async def test_a_user_is_found_although_the_indexes_were_dropped(
    store: MongoStore, stored: Stored, what: str
) -> None:
    """A listing creates the indexes anew, also where somebody dropped the whole collection."""
    user = new_user()
    await created(store, user=user)
    if what == "indexes":
        stored.drop_indexes()
    else:
        stored.drop()
    record = await created(store, user=user)

    assert record.handle in handles(await store.of_user(user, now_ms=NOW))
    assert stored.index_information().keys() == {"_id_", "expires", "user"}


@pytest.mark.gen_test
async def test_ping_creates_dropped_indexes_anew(store: MongoStore, stored: Stored) -> None:
    """What has expired is removed again, without a restart, sessions as well as tallies."""
    counters = store.counters()
    await counters.take("key", Rule(limit=1, first_wait_ms=1, longest_wait_ms=1, keep_ms=1), now_ms=NOW)
    await created(store)
    tallies = stored.database[stored.name.removesuffix("_sessions") + "_counters"]
    for collection in (stored, tallies):
        collection.drop_indexes()

    await store.ping()
    # Closing waits for the calls that nobody waits for.
    await store.aclose()

    assert stored.index_information().keys() == {"_id_", "expires", "user"}
    assert tallies.index_information().keys() == {"_id_", "expires"}

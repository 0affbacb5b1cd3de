"""Hostile names and values, foreign documents and bad URLs on MongoDB."""

from __future__ import annotations

import asyncio
import logging
import secrets

import bson
import pymongo
import pytest
from bson import (
    Binary,
    Code,
    DatetimeMS,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)

from stormcellar.stores import Credential, Delta, Handle, Outcome, StoreOptions, Verifier, open_store
from stormcellar.stores.conformance.cases import (
    HOUR,
    NOW,
    TREACHEROUS_KEYS,
    UNKNOWN,
    created,
    handles,
    is_ended,
    loaded,
    new_handle,
    new_record,
    new_user,
    new_verifier,
    rotated,
    scanned,
)
from stormcellar.stores.mongo.client import collection_name
from stormcellar.stores.mongo.documents import CODEC, live, to_document, to_record
from stormcellar.stores.mongo.reader import MAX_REPORTS
from stormcellar.stores.mongo.store import MongoStore
from tests.stores.mongo.samples import (
    Document,
    Stored,
    as_date,
)
from tests.support.backends import Backend


@pytest.mark.parametrize(
    "other",
    [".", "..", ".a", "a.", "a..b", "a.b", "a%2Eb", "%", "a b", "/\\\"'", "system", "A", "a", "." * 64],
)
@pytest.mark.gen_test
async def test_prefixes_never_see_each_other(mongo: Backend, other: str) -> None:
    """A store under one prefix finds, ends and lists nothing of another's, whatever its spelling."""  # G11
    user = new_user()
    here, there = (MongoStore.from_url(mongo.url, StoreOptions(name)) for name in ("stormcellar", other))
    record = await created(there, user=user)

    assert await is_ended(here, record.credential, user=user)
    assert record.handle not in await scanned(here)
    assert await here.destroy(record.handle, now_ms=NOW) is False
    assert await loaded(there, record.credential) == record
    await asyncio.gather(here.aclose(), there.aclose())


def test_collection_names_are_distinct() -> None:
    """No two spellings of a prefix share a collection."""
    prefixes = ["a.b", "a%2Eb", "a%252Eb", "a%2eb", "a", "a_sessions", "A"]

    names = {collection_name(prefix) for prefix in prefixes}

    assert len(names) == len(prefixes)


@pytest.mark.parametrize("keep", [frozenset(TREACHEROUS_KEYS) - {"put"}, None], ids=["some", "all"])
@pytest.mark.gen_test
async def test_rotation_takes_hostile_values_literally(
    store: MongoStore, keep: frozenset[str] | None
) -> None:
    """Text that MongoDB would evaluate in a pipeline is stored as it is, in every field."""  # G12
    data = {key: b'"$user"' for key in [*TREACHEROUS_KEYS, "a-b:c"]}
    record = await created(store, data=data)
    verifier, user = Verifier("$verifier"), "$$ROOT" + secrets.token_hex(4)
    delta = Delta(
        put={"x-y:z": b"$data", "seen": b"$$NOW"}, drop=frozenset({"put"}), expect={"_id": b'"$user"'}
    )

    await rotated(store, record.credential, verifier, delta, keep=keep, user=user, client=b"$client")

    after = await loaded(store, Credential(record.handle, verifier))
    survivors = {key: value for key, value in data.items() if keep is None or key in keep}
    survivors.pop("put", None)
    assert (after.user, after.client) == (user, b"$client")
    assert after.data == {**survivors, **delta.put}
    assert handles(await store.of_user(user, now_ms=NOW)) == [record.handle]


@pytest.mark.gen_test(timeout=60)
async def test_session_beyond_a_document_is_a_value_error(store: MongoStore) -> None:
    """More than 16 MiB in one session, at once or by and by, is refused whole."""
    half = b"x" * (9 << 20)
    record = await created(store, data={"a": half})

    with pytest.raises(ValueError, match="does not fit"):
        await created(store, data={"a": half, "b": half})
    with pytest.raises(ValueError, match="does not fit"):
        await store.apply(record.credential, Delta(put={"b": half}), now_ms=NOW, expires_ms=None)
    assert await loaded(store, record.credential) == record


def without(name: str) -> Document:
    """Return an update that removes the field *name*."""
    return {"$unset": {name: ""}}


def having(name: str, value: object) -> Document:
    """Return an update that gives the field *name* a foreign *value*."""
    return {"$set": {name: value}}


REQUIRED = ["verifier", "created", "rotated", "seen", "expires", "deadline", "client", "data"]


FOREIGN = [
    *(without(name) for name in REQUIRED),
    *(having(name, 7) for name in [*REQUIRED, "user", "auth", "previous", "grace_until", "data.a"]),
    *(having(name, [as_date(NOW + HOUR)]) for name in ["created", "rotated", "seen", "expires", "deadline"]),
    having("client", [b""]),
    having("data", [{"a": b"1"}]),
    having("data.a", "text"),
    having("data.a.b", b"nested"),
]


@pytest.mark.parametrize("damage", FOREIGN, ids=range(len(FOREIGN)))
@pytest.mark.gen_test
async def test_document_that_does_not_parse_is_ended(
    store: MongoStore, stored: Stored, damage: Document, caplog: pytest.LogCaptureFixture
) -> None:
    """A foreign document at our key is no session, is logged once, and can be destroyed."""  # G4
    user = new_user()
    record = await created(store, user=user, auth_ms=NOW, data={"b": b"1"})
    if next(iter(damage.get("$set", {"": ""}))).startswith("data.a."):
        stored.update_one({"_id": record.handle}, having("data.a", {}))
    stored.update_one({"_id": record.handle}, damage)
    before = stored.find_one()

    assert [await is_ended(store, record.credential, user=user) for _ in range(2)] == [True, True]
    assert await rotated(store, record.credential, new_verifier()) is Outcome.GONE
    assert await scanned(store) == {}
    assert stored.find_one() == before
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]
    assert record.handle in caplog.text
    assert await store.destroy(record.handle, now_ms=NOW) is True


DATE, LATER = DatetimeMS(NOW + HOUR), DatetimeMS(2**60)
UNBOUNDED = ["created", "rotated", "seen", "deadline", "auth"]
VALUES = [
    *(1.5, 7, Int64(8), Decimal128("1"), "text", Code("text"), Code("text", {"a": 1}), Regex("a"), b"x"),
    *(Binary(b"x" * 16, 4), Binary(b"x", 128), DATE, LATER, Timestamp(1, 1), ObjectId()),
    *(None, True, MinKey(), MaxKey(), DBRef("a", 1), {}, {"a": b"1"}, {"a": "text"}, {"a": {"b": b""}}),
    *([], ["text"], [b"x"], [DATE], [{"a": b"1"}]),
]
OPTIONAL = ["user", "auth", "previous", "grace_until"]


@pytest.mark.parametrize("name", [*REQUIRED, *OPTIONAL, "data.a"])
@pytest.mark.gen_test
async def test_what_parses_is_what_the_filters_match(mongo: Backend, name: str) -> None:
    """With any kind of value in a field, or none, a load finds the document just if an update would.

    With one exception: a load refuses every time that no calendar has, an update only such an expiry.
    """
    user = new_user()
    with pymongo.MongoClient[Document](mongo.url) as client:
        stored = client.stormcellar.get_collection(f"any-{new_handle()}", codec_options=CODEC)
        for damage in (without(name), *(having(name, value) for value in VALUES)):
            record = new_record(user=user, auth_ms=NOW, data={"b": b"1"})
            stored.insert_one({**to_document(record), "previous": "previous", "grace_until": DATE})
            stored.update_one({"_id": record.handle}, damage)
            (document,) = stored.find({"_id": record.handle})
            parsed = to_record(document)
            matched = stored.count_documents({"_id": record.handle, **live(NOW)})

            if damage == having(name, LATER) and name in UNBOUNDED:
                assert (parsed, matched) == (None, 1)
            else:
                assert (damage, matched) == (damage, int(parsed is not None and parsed.expires_ms > NOW))


@pytest.mark.gen_test
async def test_array_around_a_verifier_is_not_that_verifier(store: MongoStore, stored: Stored) -> None:
    """MongoDB's habit of comparing with each element of an array opens no session."""  # G12
    record = await created(store)
    stored.update_one({"_id": record.handle}, having("verifier", [record.verifier]))

    assert await is_ended(store, record.credential)
    assert await rotated(store, record.credential, new_verifier()) is Outcome.GONE


@pytest.mark.gen_test
async def test_log_of_foreign_documents_is_bounded(
    store: MongoStore, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    """A collection full of foreign documents is not remembered whole, nor logged for ever."""
    stored.insert_many([{"_id": f"foreign-{number}"} for number in range(MAX_REPORTS + 5)])

    answers = [
        await store.load(Credential(Handle(f"foreign-{number}"), new_verifier()), now_ms=NOW)
        for number in range(MAX_REPORTS + 5)
    ]

    assert set(answers) == {UNKNOWN}
    assert len(caplog.records) == MAX_REPORTS


@pytest.mark.gen_test
async def test_ill_formed_text_beside_a_session_hides_no_other(store: MongoStore, stored: Stored) -> None:
    """A document with text that is not UTF-8, or dates beyond Python's, does not break a listing."""
    user = new_user()
    record = await created(store, user=user)
    other = bson.encode({**(stored.find_one() or {}), "_id": new_handle(), "extra": "ZZ"})
    stored.insert_one(bson.raw_bson.RawBSONDocument(other.replace(b"ZZ", b"\xff\xfe")))  # type: ignore[arg-type]
    stored.update_one({"_id": {"$ne": record.handle}}, having("created", bson.datetime_ms.DatetimeMS(2**60)))

    assert record.handle in handles(await store.of_user(user, now_ms=NOW))
    assert record.handle in await scanned(store)


BAD_URLS = [
    "mongodb://",
    "mongodb:///sessions",
    "mongodb://127.0.0.1:99999/",
    "mongodb://127.0.0.1:port/",
    "mongodb://127.0.0.1/a.collection",
    "mongodb://127.0.0.1/a%20b",
    "mongodb://127.0.0.1/$db",
    "mongodb://127.0.0.1/?no_such_option=1",
    "mongodb://127.0.0.1/?tls=perhaps",
    "mongodb://127.0.0.1/?tls=true&tlsCAFile=/no/such/file",
    "mongodb://a,b/?directConnection=true",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_url_is_one_line(url: str) -> None:
    """A URL that cannot work is refused when the store is made, in one line that says why."""
    with pytest.raises(ValueError) as refused:
        open_store(url)

    assert str(refused.value).startswith("bad MongoDB URL: ")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://alice:hunter2@127.0.0.1:port/",
        "mongodb://alice:hunter2@x@127.0.0.1/",
        "mongodb://alice:@hunter2/@127.0.0.1/",
        "mongodb://alice:x@127.0.0.1/?hunter2=1",
        "mongodb://127.0.0.1/?tlsCertificateKeyFilePassword=hunter2&tls=perhaps",
    ],
)
def test_bad_url_does_not_tell_the_password(url: str) -> None:
    """The message about a URL with a password repeats no part of it, and neither does what led to it."""
    with pytest.raises(ValueError) as refused:
        open_store(url)

    assert "hunter2" not in str(refused.value)
    assert refused.value.__suppress_context__ is True

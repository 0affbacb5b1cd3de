"""Calls of one iteration of the loop on `MongoStore` share a command, and each has its own result."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo.errors import BulkWriteError
from pymongo.results import BulkWriteResult

from stormcellar.stores import Credential, Delta, Handle, Outcome, Record, StoreUnavailable, Verifier
from stormcellar.stores.conformance.cases import (
    HOUR,
    MINUTE,
    NOTHING,
    NOW,
    SUPERSEDED,
    UNKNOWN,
    created,
    handles,
    loaded,
    new_handle,
    new_verifier,
    rotated,
)
from stormcellar.stores.mongo import MongoStore
from stormcellar.stores.mongo.calls import Calls
from stormcellar.stores.mongo.updates import Update, Updates
from tests.conftest import StartServer
from tests.stores.mongo.samples import Stored, is_command, sent, store_at, through_proxy
from tests.support.backends import Backend

PUT = Delta(put={"n": b"1"})


async def put(store: MongoStore, credential: Credential, delta: Delta = PUT) -> Outcome:
    """Write *delta*, and touch."""
    return await store.apply(credential, delta, now_ms=NOW, expires_ms=NOW + HOUR)


async def answers(*calls: Any) -> list[Any]:
    """Make the calls at once; return what each answers or raises."""
    return await asyncio.gather(*calls, return_exceptions=True)


def of_handle(credential: Credential) -> Credential:
    """Return a credential for the same session, with a verifier never issued."""
    return Credential(credential.handle, new_verifier())


@pytest.mark.gen_test
async def test_loads_of_one_turn_are_one_find(backend: Backend) -> None:
    """Each has its own answer, by its own verifier, also several loads of one session."""
    async with through_proxy(backend) as (store, proxy):
        one, two = await created(store, data={"n": b"1"}), await created(store, data={"n": b"2"})
        renewed = await created(store)
        current = Credential(renewed.handle, new_verifier())
        await rotated(store, renewed.credential, current.verifier, now_ms=NOW, grace_ms=MINUTE)
        dead = await created(store, expires_ms=NOW)
        never = Credential(new_handle(), new_verifier())
        asked = [
            *(one.credential, two.credential, one.credential, of_handle(one.credential)),
            *(renewed.credential, current, of_handle(current), dead.credential, never),
        ]
        proxy.requests.clear()

        found = await asyncio.gather(*(store.load(credential, now_ms=NOW) for credential in asked))

        assert len(sent(proxy, b"find")) == 1
        assert found[:4] == [one, two, one, SUPERSEDED]
        assert [record.verifier for record in found[4:6] if isinstance(record, Record)] == [
            renewed.verifier,
            current.verifier,
        ]
        assert found[6:] == [SUPERSEDED, UNKNOWN, UNKNOWN]
        assert isinstance(found[0], Record) and isinstance(found[2], Record)
        assert found[0].data is not found[2].data


@pytest.mark.gen_test
async def test_a_turn_of_large_sessions_is_one_reply(mongo: Backend) -> None:
    """As many sessions of the greatest size as a batch holds need no second request."""
    async with through_proxy(mongo) as (store, proxy):
        records = [await created(store, data={"pad": b"x" * (64 << 10)}) for _ in range(64)]
        proxy.requests.clear()

        found = await asyncio.gather(*(loaded(store, record.credential) for record in records))

        assert found == records
        assert [len(sent(proxy, name)) for name in (b"find", b"getMore", b"killCursors")] == [1, 0, 0]


@pytest.mark.gen_test
async def test_a_lost_reply_to_a_batch_of_loads(mongo: Backend) -> None:
    """The batch is sent again, once; if that is lost too, each caller is told by an error of its own."""
    async with through_proxy(mongo) as (store, proxy):
        records = [await created(store, data={}) for _ in range(5)]
        proxy.requests.clear()
        proxy.drop_replies(is_command(b"find"))
        found = await asyncio.gather(*(loaded(store, record.credential) for record in records))
        sent_first = len(sent(proxy, b"find"))
        proxy.drop_replies(is_command(b"find"), times=2)

        told = await answers(*(store.load(record.credential, now_ms=NOW) for record in records))

        assert found == records
        assert (sent_first, len(sent(proxy, b"find"))) == (2, 4)
        assert {type(error) for error in told} == {StoreUnavailable}
        assert len({id(error) for error in told}) == len(records)


@pytest.mark.gen_test
async def test_applies_of_one_turn_are_one_update(
    backend: Backend, store: MongoStore, stored: Stored
) -> None:
    """Each is told its own outcome, and those that write nothing bring nothing into being."""
    records = [await created(store, data={"n": b"0"}) for _ in range(6)]
    one, two, destroyed, rotated_away, dead, foreign = (record.credential for record in records)
    await store.destroy(destroyed.handle, now_ms=NOW)
    await rotated(store, rotated_away, new_verifier())
    stored.update_one({"_id": dead.handle}, {"$set": {"expires": NOW}})
    stored.update_one({"_id": foreign.handle}, {"$unset": {"created": ""}})
    never = Credential(new_handle(), new_verifier())
    before = {document["_id"]: document for document in stored.find()}

    told = await answers(
        put(store, one, Delta(put={"n": b"1"}, expect={"n": b"0"})),
        put(store, two, Delta(put={"n": b"1"}, expect={"n": b"7"})),
        put(store, two, Delta(put={"m": b"1"}, expect={"m": None})),
        *(put(store, credential) for credential in (destroyed, rotated_away, dead, foreign, never)),
        put(store, of_handle(one)),
        put(store, one, Delta(drop=frozenset("n"))),
        put(store, never, Delta(expect={"n": b"0"})),
        put(store, two, NOTHING),
    )
    after = {document["_id"]: document for document in stored.find()}
    data = [(await loaded(store, credential)).data for credential in (one, two)]

    applied, gone = Outcome.APPLIED, Outcome.GONE
    assert told == [applied, Outcome.CONFLICT, applied, *[gone] * 6, applied, gone, applied]
    assert data == [{}, {"n": b"0", "m": b"1"}]
    assert set(after) == set(before)
    assert [after[each.handle] == before[each.handle] for each in (rotated_away, dead, foreign)] == [True] * 3


@pytest.mark.gen_test
async def test_a_batch_of_applies_is_one_command(backend: Backend) -> None:
    """What leaves together is one majority write, whatever becomes of its parts; GONE takes no read."""
    async with through_proxy(backend) as (store, proxy):
        records = [await created(store) for _ in range(8)]
        await store.destroy(records[0].handle, now_ms=NOW)
        proxy.requests.clear()

        told = await asyncio.gather(*(put(store, record.credential) for record in records))

        assert told == [Outcome.GONE] + [Outcome.APPLIED] * 7
        (command,) = sent(proxy, b"update")
        assert command["writeConcern"] == {"w": "majority"}
        assert 0 < command["maxTimeMS"] < 5000
        assert ("txnNumber" in command) == (backend.name == "mongo_rs")
        assert sent(proxy, b"find") == []


@pytest.mark.gen_test
async def test_a_batch_of_applies_with_a_lost_reply_was_sent_once(mongo: Backend) -> None:
    """On a standalone server each caller hears StoreUnavailable, and each write happened exactly once."""
    async with through_proxy(mongo) as (store, proxy):
        records = [await created(store, data={}) for _ in range(5)]
        proxy.requests.clear()
        proxy.drop_replies(is_command(b"update"))

        told = await answers(*(put(store, record.credential) for record in records))

        assert {type(error) for error in told} == {StoreUnavailable}
        assert len({id(error) for error in told}) == len(records)
        assert len(sent(proxy, b"update")) == 1
        assert [(await loaded(store, record.credential)).data for record in records] == [{"n": b"1"}] * 5


@pytest.mark.gen_test
async def test_a_batch_of_applies_sent_again_is_applied_once(mongo_rs: Backend) -> None:
    """Under one number the replica set answers as it did: what was applied is, what was refused is not."""
    delta = Delta(put={"n": b"1"}, expect={"n": None})
    async with through_proxy(mongo_rs) as (store, proxy):
        records = [await created(store, data={}) for _ in range(5)]
        await store.destroy(records[0].handle, now_ms=NOW)
        proxy.requests.clear()
        proxy.drop_replies(is_command(b"update"))

        told = await asyncio.gather(*(put(store, record.credential, delta) for record in records))

        # Applied twice, the others would be CONFLICT.
        assert told == [Outcome.GONE] + [Outcome.APPLIED] * 4
        again = sent(proxy, b"update")
        assert len(again) == 2
        assert len({(command["lsid"]["id"], command["txnNumber"]) for command in again}) == 1
        assert [record async for record in store.scan(now_ms=NOW) if record.handle == records[0].handle] == []


@pytest.mark.gen_test
async def test_a_session_that_grows_too_large_harms_nobody(store: MongoStore) -> None:
    """In a batch it alone is refused, by the server or, if no command can hold the write, by the driver."""
    other, full = await created(store, data={}), await created(store, data={"a": b"x" * 16_000_000})
    more = Delta(put={"b": b"x" * 900_000})
    most = Delta(put={"b": b"x" * (17 << 20)})

    told = await answers(
        put(store, other.credential),
        put(store, full.credential, more),
        put(store, full.credential, most),
        put(store, other.credential, Delta(put={"m": b"2"})),
    )

    assert [type(answer) for answer in told] == [Outcome, ValueError, ValueError, Outcome]
    assert (await loaded(store, other.credential)).data == {"n": b"1", "m": b"2"}
    assert (await loaded(store, full.credential)).data == full.data


@pytest.mark.gen_test
async def test_a_credential_that_is_no_text_harms_nobody(store: MongoStore) -> None:
    """One with a lone surrogate, which cannot be sent, is refused; those beside it are served."""
    record = await created(store)
    bad = [
        Credential(Handle("\udcff" * 22), record.verifier),
        Credential(record.handle, Verifier("\udcff" * 43)),
    ]

    found = await answers(*(store.load(each, now_ms=NOW) for each in (record.credential, *bad)))
    told = await answers(*(put(store, each) for each in (record.credential, *bad)))

    assert (found[0], found[2]) == (record, SUPERSEDED)
    assert isinstance(found[1], UnicodeEncodeError)
    assert told[0] is Outcome.APPLIED
    assert [type(error) for error in told[1:]] == [UnicodeEncodeError] * 2


@pytest.mark.parametrize("steps", range(0, 24, 2))
@pytest.mark.gen_test
async def test_a_cancelled_caller_harms_nobody(store: MongoStore, steps: int) -> None:
    """Whenever one of a batch leaves, the others are answered, and its own write is whole or not at all."""
    records = [await created(store, data={}) for _ in range(4)]
    both = Delta(put={"a": b"1", "b": b"1"})
    loads = [asyncio.ensure_future(store.load(record.credential, now_ms=NOW)) for record in records]
    applies = [asyncio.ensure_future(put(store, record.credential, both)) for record in records]
    for _ in range(steps):
        await asyncio.sleep(0)
    loads[1].cancel()
    applies[1].cancel()

    found, told = await answers(*loads), await answers(*applies)

    stays = [0, 2, 3]
    assert [found[n].handle for n in stays] == [records[n].handle for n in stays]
    assert [told[n] for n in stays] == [Outcome.APPLIED] * 3
    now = (await loaded(store, records[1].credential)).data
    assert now in ({}, both.put)


@pytest.mark.gen_test
async def test_what_is_asked_after_a_write_sees_it(store: MongoStore) -> None:
    """Beside loads that are always under way, each load answers what was written before it was asked."""
    records = [await created(store) for _ in range(20)]
    is_over = False

    async def keeps_loading(record: Record) -> None:
        while not is_over:
            await store.load(record.credential, now_ms=NOW)

    async def writes(record: Record) -> list[bytes]:
        seen = []
        for n in range(20):
            await put(store, record.credential, Delta(put={"n": b"%d" % n}))
            seen.append((await loaded(store, record.credential)).data["n"])
        return seen

    noise = [asyncio.ensure_future(keeps_loading(record)) for record in records]
    seen = await asyncio.gather(*map(writes, records))
    is_over = True
    await asyncio.gather(*noise)

    assert seen == [[b"%d" % n for n in range(20)]] * 20


@pytest.mark.gen_test(timeout=60)
async def test_batches_on_a_frozen_server_end_in_time(start_server: StartServer) -> None:
    """Calls that come one by one, and wait for those before them, each end within their own budget."""
    server = start_server("mongo")
    loop = asyncio.get_running_loop()
    async with store_at(server.url, timeout_s=0.5) as store:
        record = await created(store)

        async def seconds(call: Any) -> float:
            begun = loop.time()
            with pytest.raises(StoreUnavailable):
                await call
            return loop.time() - begun

        server.pause()
        try:
            calls = []
            for _ in range(40):
                calls.append(asyncio.ensure_future(seconds(store.load(record.credential, now_ms=NOW))))
                calls.append(asyncio.ensure_future(seconds(put(store, record.credential))))
                await asyncio.sleep(0.01)
            took = await asyncio.gather(*calls)
        finally:
            server.resume()

    assert max(took) < 0.5 + 2.0


@pytest.mark.parametrize("grace_ms", [0, MINUTE])
@pytest.mark.gen_test
async def test_rotations_of_one_turn_have_their_own_outcomes(
    store: MongoStore, stored: Stored, grace_ms: int
) -> None:
    """Of several with one credential one is applied; those that change nothing bring nothing into being."""
    records = [await created(store, data={"a": b"1", "b": b"2"}) for _ in range(3)]
    one, two, destroyed = (record.credential for record in records)
    await store.destroy(destroyed.handle, now_ms=NOW)
    never = Credential(new_handle(), new_verifier())
    verifiers = [new_verifier() for _ in range(7)]
    asked = [one, one, two, of_handle(two), destroyed, never, one]
    drop = Delta(put={"c": b"3"}, drop=frozenset("a"))

    told = await asyncio.gather(
        *(
            rotated(store, credential, verifier, drop, keep=frozenset("ab"), now_ms=NOW, grace_ms=grace_ms)
            for credential, verifier in zip(asked, verifiers, strict=True)
        )
    )

    applied, gone = Outcome.APPLIED, Outcome.GONE
    late = Outcome.CONFLICT if grace_ms else gone
    (winner,) = (n for n in (0, 1, 6) if told[n] is applied)
    assert sorted(told[n].name for n in (0, 1, 6)) == sorted([applied.name, late.name, late.name])
    assert told[2:6] == [applied, gone, gone, gone]
    assert sorted(document["_id"] for document in stored.find()) == handles(records)
    found = await loaded(store, Credential(one.handle, verifiers[winner]))
    assert found.data == {"b": b"2", "c": b"3"}


@pytest.mark.gen_test
async def test_an_apply_and_a_rotation_share_a_batch(backend: Backend) -> None:
    """Writes of both kinds leave as one command, and each does what it does alone."""
    async with through_proxy(backend) as (store, proxy):
        writer, renewed = await created(store, data={}), await created(store, data={})
        verifier = new_verifier()
        proxy.requests.clear()

        told = await asyncio.gather(
            put(store, writer.credential), rotated(store, renewed.credential, verifier, PUT, now_ms=NOW)
        )

        assert told == [Outcome.APPLIED] * 2
        assert len(sent(proxy, b"update")) == 1
        assert (await loaded(store, writer.credential)).data == {"n": b"1"}
        assert (await loaded(store, Credential(renewed.handle, verifier))).data == {"n": b"1"}


class Inserting:
    """A collection on a server that inserts what it must not: the statement with the number 1."""

    def __init__(self, *, has_other_errors: bool) -> None:
        self._has_other_errors = has_other_errors

    async def bulk_write(self, statements: list[Any], *, ordered: bool) -> BulkWriteResult:
        """Answer as if it had inserted, and changed the others."""
        told: dict[str, Any] = {"upserted": [{"index": 1, "_id": False}], "writeConcernErrors": []}
        if self._has_other_errors:
            raise BulkWriteError({**told, "writeErrors": [{"index": 0, "code": 66, "errmsg": ""}]})
        return BulkWriteResult({**told, "nUpserted": 1}, acknowledged=True)


@pytest.mark.gen_test
@pytest.mark.parametrize("has_other_errors", [False, True])
async def test_what_was_inserted_was_not_matched(has_other_errors: bool) -> None:
    """A server that inserts after all makes nobody believe that their session was changed."""
    sessions: Any = Inserting(has_other_errors=has_other_errors)
    updates = Updates(sessions, Calls(timeout_s=1))
    update = Update({"_id": {"$eq": "x"}}, {"$set": {"a": 1}})

    matched = await asyncio.gather(*(updates.matched("apply", update, is_alone=False) for _ in range(3)))

    assert matched == [not has_other_errors, False, True]


@pytest.mark.gen_test
async def test_a_single_load_keeps_the_read_concern_of_the_url(mongo_rs: Backend) -> None:
    """Whether a load goes alone or with others, it is read as the operator asked for."""
    async with through_proxy(mongo_rs, "&readConcernLevel=majority") as (store, proxy):
        one, two = await created(store), await created(store)

        await loaded(store, one.credential)
        await answers(loaded(store, one.credential), loaded(store, two.credential))

        finds = sent(proxy, b"find")
        assert [command["readConcern"]["level"] for command in finds] == ["majority"] * 2


@pytest.mark.gen_test
async def test_a_key_to_keep_that_is_no_text_harms_nobody(store: MongoStore) -> None:
    """Of the rotations of one iteration only that one is refused."""
    records = [await created(store) for _ in range(3)]
    keeps = [frozenset({"a"}), frozenset({"\ud800"}), frozenset({"b"})]

    outcomes = await answers(
        *(
            rotated(store, record.credential, new_verifier(), now_ms=NOW, keep=keep)
            for record, keep in zip(records, keeps, strict=True)
        )
    )

    assert [outcomes[0], outcomes[2]] == [Outcome.APPLIED] * 2
    assert isinstance(outcomes[1], UnicodeEncodeError)

"""The memory store keeps the contract, stays within its bound, and forgets the expired as it goes."""

from __future__ import annotations

import asyncio
import itertools
import random
import tracemalloc
from contextlib import aclosing

import pytest

from stormcellar.stores import (
    TOMBSTONE_MS,
    Credential,
    Delta,
    DuplicateSession,
    Outcome,
    StoreFull,
    StoreOptions,
    open_store,
)
from stormcellar.stores.conformance import StoreContract
from stormcellar.stores.conformance.cases import (
    HOUR,
    MINUTE,
    NOTHING,
    NOW,
    UNKNOWN,
    created,
    handles,
    living,
    loaded,
    new_handle,
    new_record,
    new_user,
    new_verifier,
    rotated,
    scanned,
)
from stormcellar.stores.memory.listeners import WAITING_PER_LISTENER
from stormcellar.stores.memory.schedule import BUCKET_BITS
from stormcellar.stores.memory.store import RECLAIMED_PER_CALL, MemoryStore

MIB = 1024 * 1024


class TestMemoryStore(StoreContract):
    url = "memory:"


def test_bound_comes_from_the_options() -> None:
    """`open_store` hands `max_sessions` on, and the store says that no other process shares it."""
    store = open_store("memory:", max_sessions=7, max_memory=MIB)

    assert isinstance(store, MemoryStore)
    assert isinstance(open_store("memory://"), MemoryStore)
    assert (store.max_sessions, store.max_memory, store.shared) == (7, MIB, False)


@pytest.mark.parametrize(
    "url", ["memory", "memory:///", "memory://x", "memory:x", "memory:?a=1", "MEMORY:", ""]
)
def test_a_memory_url_has_no_more_than_its_scheme(url: str) -> None:
    """Whatever else a memory URL says would be ignored, so it is refused."""
    with pytest.raises(ValueError, match="takes no address"):
        MemoryStore.from_url(url, StoreOptions())


@pytest.mark.parametrize("name", ["max_sessions", "max_memory"])
@pytest.mark.parametrize("bound", [0, -1])
def test_a_bound_below_one_is_refused(bound: int, name: str) -> None:
    """A store that could hold nothing is a mistake in the configuration."""
    with pytest.raises(ValueError, match="at least 1"):
        MemoryStore(**{name: bound})


@pytest.mark.gen_test
async def test_full_store_evicts_the_expired_first() -> None:
    """An expired session makes room, a signed-in one too, before any live anonymous one is touched."""  # G18
    store = MemoryStore(max_sessions=2)
    expired = await created(store, user="a", seen_ms=NOW - HOUR, expires_ms=NOW)
    idle = await created(store, seen_ms=NOW - MINUTE)

    new = await created(store)

    assert handles((await scanned(store)).values()) == sorted([idle.handle, new.handle])
    assert await store.destroy(expired.handle, now_ms=NOW) is False


@pytest.mark.gen_test
async def test_full_store_evicts_the_least_recently_seen_anonymous() -> None:
    """Without an expired one the anonymous sessions go in the order in which they were last seen."""  # G18
    store = MemoryStore(max_sessions=4)
    signed_in = await created(store, user="a", seen_ms=NOW - 9 * MINUTE)
    touched = await created(store, created_ms=NOW - 30 * MINUTE, seen_ms=NOW - 8 * MINUTE)
    second = await created(store, created_ms=NOW - 20 * MINUTE, seen_ms=NOW - 6 * MINUTE)
    first = await created(store, created_ms=NOW - 10 * MINUTE, seen_ms=NOW - 7 * MINUTE)
    await store.apply(touched.credential, NOTHING, now_ms=NOW, expires_ms=NOW + HOUR)

    one = await created(store, seen_ms=NOW + 1)
    after_one = set(await scanned(store))
    two = await created(store, seen_ms=NOW + 1)

    assert after_one == {signed_in.handle, touched.handle, second.handle, one.handle}, first
    assert set(await scanned(store)) == {signed_in.handle, touched.handle, one.handle, two.handle}


@pytest.mark.gen_test
async def test_sign_in_protects_and_sign_out_of_the_user_exposes() -> None:
    """A session that a rotation binds is no longer evicted; one that it unbinds is again."""  # G18
    store = MemoryStore(max_sessions=2)
    bound = await created(store, seen_ms=NOW - 2 * MINUTE)
    unbound = await created(store, user="b", seen_ms=NOW - MINUTE)
    new = Credential(bound.handle, new_verifier())
    await rotated(store, bound.credential, new.verifier, user="a")
    await rotated(store, unbound.credential, new_verifier(), user=None)

    await created(store)

    assert (await loaded(store, new)).user == "a"
    assert await store.destroy(unbound.handle, now_ms=NOW) is False


@pytest.mark.gen_test
async def test_store_full_of_users_refuses_and_loses_nothing() -> None:
    """When every session has a user, `create` raises StoreFull; all else goes on working."""  # G18
    store = MemoryStore(max_sessions=3)
    user = new_user()
    records = [await created(store, user=user) for _ in range(3)]
    refused = new_record()

    with pytest.raises(StoreFull, match="all 3 sessions"):
        await store.create(refused)
    assert await store.load(refused.credential, now_ms=NOW) == UNKNOWN
    assert handles(await store.of_user(user, now_ms=NOW)) == handles(records)
    write = await store.apply(records[0].credential, Delta(put={"a": b"9"}), now_ms=NOW, expires_ms=None)
    turn = await rotated(store, records[1].credential, new_verifier(), user=user)
    assert (write, turn) == (Outcome.APPLIED, Outcome.APPLIED)
    assert await store.destroy(records[2].handle, now_ms=NOW) is True
    await store.create(refused)
    assert await loaded(store, refused.credential) == refused


@pytest.mark.gen_test
async def test_duplicate_in_a_full_store_evicts_nobody() -> None:
    """A refused duplicate makes no room, because it needs none."""
    store = MemoryStore(max_sessions=1)
    record = await created(store)

    with pytest.raises(DuplicateSession):
        await store.create(record)
    assert await loaded(store, record.credential) == record


@pytest.mark.gen_test
async def test_reclaim_is_bounded_in_each_call() -> None:
    """However many records have expired, one call removes a few of them, and enough calls all."""  # B12
    store = MemoryStore()
    for _ in range(100):
        await created(store, user="a", expires_ms=NOW + MINUTE)
    stranger, sizes = Credential(new_handle(), new_verifier()), [len(store)]

    for _ in range(14):
        await store.load(stranger, now_ms=NOW + MINUTE + TOMBSTONE_MS)
        sizes.append(len(store))

    steps = [before - after for before, after in itertools.pairwise(sizes)]
    assert steps == [RECLAIMED_PER_CALL] * 12 + [4, 0]


@pytest.mark.gen_test
async def test_every_kind_of_traffic_reclaims() -> None:
    """Reads, writes, rotations and creations alike remove what has expired."""  # B12
    store = MemoryStore()
    late, stranger = NOW + HOUR + TOMBSTONE_MS, Credential(new_handle(), new_verifier())
    sizes = []
    for number in range(4):
        for _ in range(RECLAIMED_PER_CALL):
            await created(store, seen_ms=NOW)
        before = len(store)
        if number == 0:
            await store.load(stranger, now_ms=late)
        elif number == 1:
            await store.apply(stranger, NOTHING, now_ms=late, expires_ms=None)
        elif number == 2:
            await rotated(store, stranger, new_verifier(), now_ms=late)
        else:
            await created(store, seen_ms=late, expires_ms=late + HOUR)
        sizes.append((before, len(store)))

    assert sizes == [(8, 0), (8, 0), (8, 0), (8, 1)]


@pytest.mark.gen_test
async def test_reclaim_follows_an_expiry_that_moved() -> None:
    """A slid session is not reclaimed at its old expiry; one whose expiry moved back goes at the new one."""
    store = MemoryStore()
    slid, shortened = await created(store), await created(store)
    await store.apply(slid.credential, NOTHING, now_ms=NOW, expires_ms=NOW + 2 * HOUR)
    new = Credential(shortened.handle, new_verifier())
    await rotated(store, shortened.credential, new.verifier, expires_ms=NOW + MINUTE)
    stranger, sizes = Credential(new_handle(), new_verifier()), []

    for now in (NOW + MINUTE - 1, NOW + MINUTE, NOW + HOUR, NOW + 2 * HOUR):
        await store.load(stranger, now_ms=now + TOMBSTONE_MS)
        sizes.append(len(store))

    assert sizes == [2, 1, 1, 0]


@pytest.mark.gen_test
async def test_expired_record_not_yet_reclaimed_is_ended() -> None:
    """What the bound of one call leaves behind is as ended as what it removes."""  # B5
    store = MemoryStore()
    for _ in range(100):
        await created(store, expires_ms=NOW + MINUTE - 1)
    user, at = new_user(), NOW + MINUTE
    record = await created(store, user=user, expires_ms=at)
    both = [record.credential, Credential(record.handle, new_verifier())]

    loads = [await store.load(each, now_ms=at) for each in both]
    writes = [await store.apply(each, NOTHING, now_ms=at, expires_ms=at + HOUR) for each in both]
    turns = [await rotated(store, each, new_verifier(), user=user, now_ms=at) for each in both]
    listed = (await store.of_user(user, now_ms=at), await living(store, both, now_ms=at))

    assert (loads, writes, turns) == ([UNKNOWN] * 2, [Outcome.GONE] * 2, [Outcome.GONE] * 2)
    assert listed == ([], set())
    assert await scanned(store, now_ms=at) == {}
    assert await store.destroy(record.handle, now_ms=NOW) is True, (
        "reclaimed, so that this test shows nothing"
    )


@pytest.mark.gen_test
async def test_ended_sessions_leave_nothing_behind() -> None:
    """After destroy, expiry and eviction no table of the store mentions a session."""  # B12
    store = MemoryStore(max_sessions=50)
    for number in range(200):
        record = await created(store, user=new_user() if number % 3 == 0 else None)
        if number % 3 == 0:
            await store.destroy(record.handle, now_ms=NOW)
    stranger = Credential(new_handle(), new_verifier())
    for _ in range(50):
        await store.apply(stranger, NOTHING, now_ms=NOW + HOUR + TOMBSTONE_MS, expires_ms=None)

    tables = {**vars(store), **vars(store._listing)}
    assert {name: len(value) for name, value in tables.items() if hasattr(value, "__len__")} == {
        "_entries": 0,
        "users": 0,
        "_by_expiry": 0,
        "by_expiry": 0,
        "anonymous_by_seen": 0,
        "_listeners": 0,
        "_counters": 0,
        "_tombstones": 0,
    }


@pytest.mark.gen_test
async def test_listener_that_does_not_read_is_bounded() -> None:
    """A listener that stops reading is told that some are missing; they do not fill the memory."""
    store = MemoryStore()
    async with aclosing(store.gone()) as listener:
        assert await anext(listener) is None

        for _ in range(WAITING_PER_LISTENER + 50):
            await store.destroy((await created(store, data={})).handle, now_ms=NOW)
        read = [await anext(listener) for _ in range(WAITING_PER_LISTENER + 1)]
        last = await created(store)
        await store.destroy(last.handle, now_ms=NOW)

        assert None not in read[:-1]
        assert read[-1] is None
        assert await anext(listener) == last.handle


@pytest.mark.gen_test
async def test_listener_may_be_closed_by_itself() -> None:
    """A closed iterator ends, is forgotten by the store, and leaves the others alone."""
    store = MemoryStore()
    async with aclosing(store.gone()) as leaving, aclosing(store.gone()) as staying:
        begun = [await anext(each) for each in (leaving, staying)]
        record = await created(store)
        await store.destroy(record.handle, now_ms=NOW)
        heard = [await anext(each) for each in (leaving, staying)]

        await leaving.aclose()
        after = asyncio.ensure_future(anext(staying))
        await asyncio.sleep(0)
        second = await created(store)
        await store.destroy(second.handle, now_ms=NOW)

        assert len(store._listeners) == 1
        assert (begun, heard) == ([None] * 2, [record.handle] * 2)
        assert await anext(leaving, None) is None
        assert await after == second.handle


@pytest.mark.gen_test
async def test_closed_store_has_no_announcements() -> None:
    """Listening to a store that is already closed ends at once instead of waiting for ever."""
    store = MemoryStore()
    await store.aclose()

    assert [handle async for handle in store.gone()] == []


@pytest.mark.gen_test
async def test_long_scan_lets_others_run() -> None:
    """A scan of many records yields to the event loop now and then."""
    store = MemoryStore()
    for _ in range(1000):
        await created(store, data={})
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(count())
    assert len(await scanned(store)) == 1000
    counter.cancel()

    assert turns >= 9


@pytest.mark.gen_test
async def test_session_survives_the_bucket_it_was_in() -> None:
    """One that was touched lives on when those that had its expiry leave, and leaves at its own."""
    store = MemoryStore()
    records = [await created(store) for _ in range(1000)]
    touched = records[::100]
    for record in touched:
        await store.apply(record.credential, NOTHING, now_ms=NOW + MINUTE, expires_ms=NOW + 2 * HOUR)
    stranger = Credential(new_handle(), new_verifier())

    for _ in range(200):
        await store.load(stranger, now_ms=NOW + HOUR + MINUTE + TOMBSTONE_MS)
    left = await scanned(store, now_ms=NOW + HOUR + MINUTE)
    for _ in range(2):
        await store.load(stranger, now_ms=NOW + 2 * HOUR + TOMBSTONE_MS)

    assert handles(left.values()) == handles(touched)
    assert len(store) == 0


@pytest.mark.gen_test
async def test_full_store_of_many_evicts_in_order() -> None:
    """Thousands of anonymous sessions leave as they were last seen, to within a bucket's width."""  # G18
    store, count = MemoryStore(max_sessions=3000), 3000
    order = random.Random(8).sample(range(count), count)
    records = {number: await created(store, data={}, seen_ms=NOW + 20 * number) for number in order}

    for _ in range(count // 2):
        await created(store, data={}, seen_ms=NOW + 20 * count)
    left = await scanned(store)

    width = (1 << BUCKET_BITS) // 20
    assert all(records[number].handle not in left for number in range(count // 2 - width))
    assert all(records[number].handle in left for number in range(count // 2 + width, count))


@pytest.mark.gen_test
async def test_memory_of_the_expired_is_given_back() -> None:
    """When all have expired and been reclaimed, next to nothing is left of what they took."""  # B12
    tracemalloc.start()
    try:
        store, before = MemoryStore(), tracemalloc.get_traced_memory()[0]
        for number in range(5000):
            await created(store, data={"a": b"x" * 300}, user=new_user() if number % 2 else None)
        full = tracemalloc.get_traced_memory()[0] - before
        stranger = Credential(new_handle(), new_verifier())
        for _ in range(5000 // RECLAIMED_PER_CALL + 1):
            await store.load(stranger, now_ms=NOW + HOUR + TOMBSTONE_MS)
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert len(store) == 0
    assert full > 5000 * 400
    assert left < full / 20


@pytest.mark.gen_test
async def test_users_with_one_session_and_several_are_found() -> None:
    """A user's sessions are listed as they grow from one to several and shrink again."""
    store, user, other = MemoryStore(), new_user(), new_user()
    stays = await created(store, user=other)
    listed = []
    records = [await created(store, user=user) for _ in range(3)]
    for record in records:
        listed.append(handles(await store.of_user(user, now_ms=NOW)))
        await store.destroy(record.handle, now_ms=NOW)

    assert listed == [handles(records), handles(records[1:]), handles(records[2:])]
    assert await store.of_user(user, now_ms=NOW) == []
    assert handles(await store.of_user(other, now_ms=NOW)) == [stays.handle]

"""The tombstones of the memory store: bounded in time and number, and apart from the sessions."""

from __future__ import annotations

import pytest

from stormcellar.stores import TOMBSTONE_MS, Absent, Credential, StoreFull, Why
from stormcellar.stores.conformance.cases import (
    ENDED,
    HOUR,
    MINUTE,
    NOTHING,
    NOW,
    UNKNOWN,
    created,
    handles,
    loaded,
    new_handle,
    new_record,
    new_user,
    new_verifier,
    scanned,
)
from stormcellar.stores.memory.store import MemoryStore
from stormcellar.stores.memory.tombstones import MOST, RECLAIMED_PER_CALL, Tombstones


@pytest.mark.gen_test
async def test_tombstone_leaves_after_ten_minutes_of_the_callers_clock() -> None:
    """Until then a load is ENDED, from then on UNKNOWN, and the handle is free."""
    store = MemoryStore()
    record = await created(store)
    await store.destroy(record.handle, now_ms=NOW)

    found = [
        await store.load(record.credential, now_ms=NOW + TOMBSTONE_MS - 1),
        await store.load(record.credential, now_ms=NOW + TOMBSTONE_MS),
    ]

    assert found == [ENDED, UNKNOWN]


@pytest.mark.gen_test
async def test_tombstones_take_no_room_from_sessions() -> None:
    """A store whose sessions were all destroyed is empty: `len` is 0, and as many sessions fit as before."""
    store = MemoryStore(max_sessions=3)
    for _ in range(5):
        await store.destroy((await created(store, user=new_user())).handle, now_ms=NOW)
    size = len(store)

    records = [await created(store, user=new_user()) for _ in range(3)]

    assert size == 0
    assert handles((await scanned(store)).values()) == handles(records)
    with pytest.raises(StoreFull):
        await store.create(new_record(user=new_user()))


@pytest.mark.gen_test
async def test_every_change_removes_old_tombstones() -> None:
    """Writes, creations and destroys each remove a few, also when no session expires."""
    store = MemoryStore()
    late, stranger = NOW + TOMBSTONE_MS, Credential(new_handle(), new_verifier())
    for _ in range(4 * RECLAIMED_PER_CALL):
        await store.destroy((await created(store)).handle, now_ms=NOW)
    sizes = []

    await store.apply(stranger, NOTHING, now_ms=late, expires_ms=None)
    sizes.append(len(store._tombstones))
    last = await created(store, seen_ms=late, expires_ms=late + HOUR)
    sizes.append(len(store._tombstones))
    await store.destroy(last.handle, now_ms=late)
    sizes.append(len(store._tombstones))

    assert sizes == [24, 16, 9]


def test_number_of_tombstones_is_bounded() -> None:
    """Beyond it the oldest goes; the others keep their times."""
    tombstones = Tombstones()
    names = [new_handle() for _ in range(MOST + 5)]

    for number, handle in enumerate(names):
        tombstones.add(handle, NOW + number)

    assert len(tombstones) == MOST
    assert [tombstones.absent(handle, NOW) for handle in names[:5]] == [UNKNOWN] * 5
    assert tombstones.absent(names[5], NOW) == Absent(Why.ENDED, NOW + 5)


@pytest.mark.gen_test
async def test_expired_record_stays_ten_minutes_unless_the_store_is_full() -> None:
    """A request that arrived before the expiry finds it; a full store removes it first, without waiting."""
    store = MemoryStore(max_sessions=2)
    record = await created(store, user=new_user(), expires_ms=NOW)
    arrived = Credential(record.handle, record.verifier)

    await store.apply(arrived, NOTHING, now_ms=NOW + TOMBSTONE_MS - 1, expires_ms=None)
    kept = await loaded(store, arrived, now_ms=NOW - 1)
    other = await created(store, user=new_user(), seen_ms=NOW - MINUTE)
    new = await created(store, user=new_user())

    assert kept == record
    assert handles((await scanned(store, now_ms=NOW - 1)).values()) == handles([other, new])

"""The limit of the memory store in bytes: visitors' sessions go first, users' are never ended for others."""

from __future__ import annotations

import pytest

from stormcellar.stores import Delta, Outcome, StoreFull
from stormcellar.stores.conformance.cases import (
    HOUR,
    NOTHING,
    NOW,
    created,
    loaded,
    new_user,
    new_verifier,
    rotated,
    scanned,
)
from stormcellar.stores.memory.store import MemoryStore

MIB = 1024 * 1024


def large(kib: int) -> dict[str, bytes]:
    """Return data of about so many KiB."""
    return {"large": b'"' + b"x" * (1024 * kib) + b'"'}


@pytest.mark.gen_test
async def test_visitors_cannot_fill_the_memory() -> None:
    """However many large sessions visitors begin, the store stays below its limit; the oldest end."""  # G18
    store = MemoryStore(max_memory=MIB)
    records = [await created(store, seen_ms=NOW + n, data=large(60)) for n in range(100)]

    kept = await scanned(store)
    assert store._entries.size_bytes <= MIB
    assert set(kept) == {record.handle for record in records[-len(kept) :]}
    assert len(kept) == MIB // (60 * 1024 + 600)


@pytest.mark.gen_test
async def test_a_write_that_grows_ends_others_never_its_own_session() -> None:
    """The least recently seen session makes room for itself only at the cost of others."""  # G18
    store = MemoryStore(max_memory=MIB)
    oldest, *others = [await created(store, seen_ms=NOW + n, data=large(60)) for n in range(16)]
    growing = Delta(put={"more": large(60)["large"]})

    outcome = await store.apply(oldest.credential, growing, now_ms=NOW, expires_ms=None)

    assert outcome is Outcome.APPLIED
    assert set(await scanned(store)) == {oldest.handle, *(each.handle for each in others[1:])}


@pytest.mark.gen_test
async def test_memory_full_of_users_refuses_what_grows_alone() -> None:
    """StoreFull changes nothing; a touch, a smaller value, a rotation and an end still work."""  # G18
    store, user = MemoryStore(max_memory=MIB), new_user()
    records = [await created(store, user=user, data=large(60)) for _ in range(16)]
    first, second, third = records[:3]
    growing = Delta(put={"more": large(60)["large"]})

    with pytest.raises(StoreFull):
        await created(store, data=large(60))
    with pytest.raises(StoreFull):
        await store.apply(first.credential, growing, now_ms=NOW, expires_ms=NOW + 2 * HOUR)
    with pytest.raises(StoreFull):
        await rotated(store, first.credential, new_verifier(), growing, user=user)
    assert await loaded(store, first.credential) == first
    assert len(await store.of_user(user, now_ms=NOW)) == 16
    touch = await store.apply(first.credential, NOTHING, now_ms=NOW, expires_ms=NOW + 2 * HOUR)
    less = await store.apply(first.credential, Delta(put={"large": b"1"}), now_ms=NOW, expires_ms=None)
    turn = await rotated(store, second.credential, new_verifier(), user=user)
    assert (touch, less, turn) == (Outcome.APPLIED,) * 3
    assert await store.destroy(third.handle, now_ms=NOW) is True
    assert await store.apply(first.credential, growing, now_ms=NOW, expires_ms=None) is Outcome.APPLIED


@pytest.mark.gen_test
async def test_count_of_bytes_returns_to_zero() -> None:
    """Whatever happened to a session, its end gives back what it took."""
    store = MemoryStore(max_memory=MIB)
    record = await created(store, data=large(10))
    await store.apply(record.credential, Delta(put=large(20)), now_ms=NOW, expires_ms=NOW + HOUR)
    await rotated(store, record.credential, new_verifier(), user=new_user(), grace_ms=1000)
    await store.destroy(record.handle, now_ms=NOW)

    assert store._entries.size_bytes == 0

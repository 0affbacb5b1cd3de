"""The index of a user's sessions in Redis: it loses no session, and stays small at any size."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import redis

from stormcellar.stores import TOMBSTONE_MS, Outcome, Record, StoreOptions, StoreUnavailable
from stormcellar.stores.conformance.cases import (
    HOUR,
    NOW,
    SECOND,
    created_many,
    handles,
    new_handle,
    new_record,
    new_verifier,
)
from stormcellar.stores.redis import RedisStore
from stormcellar.stores.redis.scripts import SAMPLE
from stormcellar.stores.redis.user_index import BIND_MS, PAGE_SIZE
from tests.stores.redis.samples import index_key, left_of, now, sign_in
from tests.support.backends import Backend


@pytest.mark.gen_test
async def test_a_reader_between_index_and_bind_loses_no_login(
    redis_cluster: Backend, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever lists a user's sessions while one is being bound leaves its index entry alone.

    Only in a cluster are the two a step each.
    """

    listed: list[Any] = []
    store = RedisStore.from_url(redis_cluster.url, StoreOptions(prefix))
    watched = RedisStore.from_url(redis_cluster.url, StoreOptions(prefix))
    add = watched._index.add

    async def add_and_list(*arguments: Any) -> list[bytes]:
        sample = await add(*arguments)
        listed.append(await store.of_user("alice", now_ms=NOW))
        return sample

    monkeypatch.setattr(watched._index, "add", add_and_list)
    anonymous, direct = new_record(), new_record(user="alice")
    await store.create(anonymous)

    await watched.create(direct)
    await sign_in(watched, anonymous, "alice")
    await watched.aclose()

    found = {record.handle for record in await store.of_user("alice", now_ms=NOW)}
    await store.aclose()
    assert (len(listed), found) == (2, {direct.handle, anonymous.handle})


@pytest.mark.gen_test
async def test_a_stale_index_entry_leaves_after_a_minute(
    store: RedisStore, admin: redis.Redis, prefix: str
) -> None:
    """An entry without its record stays for 60 s of the caller's clock and is then removed by a reader."""
    record = new_record(user="alice")
    await store.create(record)
    admin.delete(f"{prefix}:s:{record.handle}")
    key, added_ms = index_key(prefix, "alice"), record.seen_ms

    await store.of_user("alice", now_ms=added_ms + 60_000)
    kept = admin.zcard(key)
    await store.of_user("alice", now_ms=added_ms + 60_001)

    assert (kept, admin.zcard(key)) == (1, 0)


@pytest.mark.gen_test
async def test_binding_again_refreshes_the_index_entry(
    store: RedisStore, admin: redis.Redis, prefix: str
) -> None:
    """Away from a user and back: the entry counts from the last binding, and never from an older clock."""
    record = new_record(user="alice")
    away, back, behind = new_verifier(), new_verifier(), new_verifier()
    later = record.seen_ms + 120_000
    await store.create(record)

    await sign_in(store, record, "bob", verifier=away)
    await sign_in(store, replace(record, verifier=away), "alice", verifier=back, now_ms=later)
    refreshed = admin.zscore(index_key(prefix, "alice"), record.handle)
    await sign_in(
        store,
        replace(record, verifier=back),
        "alice",
        verifier=behind,
        deadline_ms=record.deadline_ms + 1_000,
    )

    assert refreshed == later
    assert admin.zscore(index_key(prefix, "alice"), record.handle) == later


@pytest.mark.gen_test
async def test_a_late_removal_spares_a_session_bound_again(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bound to another user and back: the first rotation's removal from the old index loses nothing."""
    record, away, back = new_record(user="alice"), new_verifier(), new_verifier()
    returning = replace(record, verifier=away)
    await store.create(record)
    held = asyncio.Event()
    prune = store._index.prune

    async def late(*arguments: Any) -> None:
        if not held.is_set():
            held.set()
            assert await sign_in(store, returning, "alice", verifier=back) is Outcome.APPLIED
        await prune(*arguments)

    monkeypatch.setattr(store._index, "prune", late)
    await sign_in(store, record, "bob", verifier=away)

    assert held.is_set()
    assert [found.verifier for found in await store.of_user("alice", now_ms=now())] == [back]


@pytest.mark.gen_test
async def test_an_index_lives_as_long_as_its_latest_deadline(
    store: RedisStore, admin: redis.Redis, prefix: str
) -> None:
    """A binding extends the expiry of the user's index and never shortens it."""
    long, short = new_record(user="alice"), new_record(user="alice", deadline_ms=now() + 700_000)
    await store.create(long)
    first = left_of(admin, index_key(prefix, "alice")) - (long.deadline_ms - NOW)

    await store.create(short)
    second = left_of(admin, index_key(prefix, "alice")) - (long.deadline_ms - NOW)
    await sign_in(store, short, "alice", deadline_ms=long.deadline_ms + 300_000)
    third = left_of(admin, index_key(prefix, "alice")) - (long.deadline_ms - NOW) - 300_000

    slack_ms = TOMBSTONE_MS + BIND_MS
    assert [0 <= slack_ms - slack < 1000 for slack in (first, second, third)] == [True, True, True]


def add_stale(admin: redis.Redis, key: str, number: int) -> None:
    """Add so many entries whose records expired an hour ago."""
    admin.zadd(key, {new_handle(): NOW - HOUR for _ in range(number)})
    admin.pexpire(key, HOUR)


@pytest.mark.gen_test(timeout=60)
async def test_index_of_many_pages_is_read_whole(store: RedisStore, admin: redis.Redis, prefix: str) -> None:
    """Live sessions among many more stale entries are each listed once, and the stale entries removed."""
    records = [new_record(user="alice", data={}) for _ in range(200)]
    await created_many(store, records)
    add_stale(admin, index_key(prefix, "alice"), 3 * PAGE_SIZE)

    found = await store.of_user("alice", now_ms=NOW)

    assert handles(found) == handles(records)
    assert admin.zcard(index_key(prefix, "alice")) == len(records)


@pytest.mark.gen_test(timeout=60)
async def test_reader_that_times_out_leaves_a_smaller_index(
    store: RedisStore, admin: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it removed stays removed, so that a later reader gets through."""
    record, key = new_record(user="alice"), index_key(prefix, "alice")
    await store.create(record)
    add_stale(admin, key, 5 * PAGE_SIZE)
    read, pages = store._index._read, 0

    async def read_two_pages(*arguments: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages > 2:
            raise TimeoutError
        return await read(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(store._index, "_read", read_two_pages)
        with pytest.raises(StoreUnavailable):
            await store.of_user("alice", now_ms=NOW)
    left: Any = admin.zcard(key)
    found = await store.of_user("alice", now_ms=NOW)

    assert PAGE_SIZE < left <= 3 * PAGE_SIZE + SECOND
    assert (handles(found), admin.zcard(key)) == ([record.handle], 1)


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("is_created", [True, False], ids=["created", "rotated"])
async def test_account_that_never_signs_out_keeps_a_small_index(
    store: RedisStore, admin: redis.Redis, prefix: str, is_created: bool
) -> None:
    """A program that signs in each minute, and whose sessions expire, leaves a handful of entries."""
    sizes, key = [], index_key(prefix, "program")
    for number in range(150):
        at = NOW - 5 * HOUR + number * (BIND_MS + SECOND)
        times: dict[str, Any] = {"created_ms": at, "rotated_ms": at, "seen_ms": at}
        record = new_record(**times, user="program" if is_created else None, data={})
        await store.create(record)
        if not is_created:
            assert await sign_in(store, record, "program", now_ms=at) is Outcome.APPLIED
        admin.delete(f"{prefix}:s:{record.handle}")
        sizes.append(admin.zcard(key))

    assert max(sizes) <= 2 * SAMPLE + 1


@pytest.mark.gen_test(timeout=60)
async def test_many_sign_ins_lose_no_live_session(store: RedisStore) -> None:
    """However often others are added, a session that was bound long ago stays listed as long as it lives."""
    long_ago = NOW - 11 * HOUR
    old = [new_record(user="alice", created_ms=long_ago, seen_ms=long_ago, data={}) for _ in range(20)]
    new = [new_record(user="alice", data={}) for _ in range(100)]
    await created_many(store, old)

    await created_many(store, new)

    assert handles(await store.of_user("alice", now_ms=NOW)) == handles([*old, *new])


@pytest.mark.gen_test
async def test_sign_in_does_not_depend_on_trimming(
    store: RedisStore, admin: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the entries of the sample cannot be checked, the session is created and bound all the same."""
    direct, bound = new_record(user="alice"), new_record()
    await store.create(bound)
    add_stale(admin, index_key(prefix, "alice"), 20)

    async def fail(user: bytes, names: Sequence[bytes]) -> tuple[list[Record], list[bytes]]:
        raise StoreUnavailable("prune")

    with monkeypatch.context() as patch:
        patch.setattr(store._index, "_read", fail)
        await store.create(direct)
        outcome = await sign_in(store, bound, "alice")

    assert outcome is Outcome.APPLIED
    assert admin.zcard(index_key(prefix, "alice")) == 22
    assert handles(await store.of_user("alice", now_ms=NOW)) == handles([direct, bound])


@pytest.mark.gen_test
async def test_sign_in_of_a_user_with_few_sessions_is_one_command(redis8: Backend, prefix: str) -> None:
    """On one server nothing is checked as long as the index is small."""
    store = RedisStore.from_url(redis8.url, StoreOptions(prefix))
    records = [new_record(user="alice") for _ in range(2 * SAMPLE + 1)]
    await store.create(records[0])
    with redis.Redis(port=redis8.port) as admin:
        counts = []
        for record in records[1:]:
            admin.config_resetstat()
            await store.create(record)
            stats: Any = admin.info("commandstats")
            counts.append((stats["cmdstat_evalsha"]["calls"], "cmdstat_zrandmember" in stats))
    await store.aclose()

    assert counts == [(1, False)] * (2 * SAMPLE - 1) + [(1, True)]


@pytest.mark.gen_test
async def test_entry_that_is_no_text_is_removed(store: RedisStore, admin: redis.Redis, prefix: str) -> None:
    """Whatever somebody else wrote into an index leaves it, too."""
    record = new_record(user="alice")
    await store.create(record)
    admin.zadd(index_key(prefix, "alice"), {b"\xff\xfe": 1, b"": 2, b"a b": 3})

    assert handles(await store.of_user("alice", now_ms=NOW)) == [record.handle]
    assert admin.zrange(index_key(prefix, "alice"), 0, -1) == [record.handle.encode()]

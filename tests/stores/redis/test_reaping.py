"""When Redis removes records and tombstones by itself, and what it makes of times that no calendar has."""

from __future__ import annotations

import pytest
import redis

from stormcellar.stores import TOMBSTONE_MS, Outcome
from stormcellar.stores.conformance.cases import NOTHING, NOW, UNKNOWN, living, new_record
from stormcellar.stores.redis import RedisStore
from tests.stores.redis.samples import left_of, now, sign_in


@pytest.mark.gen_test
async def test_key_of_an_expired_record_stays_ten_minutes(
    store: RedisStore, admin: redis.Redis, prefix: str
) -> None:
    """Created, touched or rotated with an expiry that is over by the caller's clock: the key stays."""
    record = new_record(expires_ms=NOW - 60_000)
    key = f"{prefix}:s:{record.handle}"
    seen = []

    await store.create(record)
    seen.append(left_of(admin, key))
    await store.apply(record.credential, NOTHING, now_ms=NOW - 90_000, expires_ms=NOW - 90_001)
    await store.apply(record.credential, NOTHING, now_ms=NOW - 90_000, expires_ms=NOW - 50_000)
    seen.append(left_of(admin, key) - 40_000)
    await sign_in(store, record, None, now_ms=NOW - 51_000, expires_ms=NOW - 70_000)
    seen.append(left_of(admin, key))

    assert [0 <= TOMBSTONE_MS - left < 1000 for left in seen] == [True, True, True]


@pytest.mark.gen_test
async def test_tombstone_is_the_time_and_leaves_after_ten_minutes(
    store: RedisStore, admin: redis.Redis, prefix: str
) -> None:
    """The key then has one field, and a second destroy does not extend it."""
    record = new_record(user="alice")
    key = f"{prefix}:s:{record.handle}"
    await store.create(record)

    await store.destroy(record.handle, now_ms=NOW - 5)
    first = left_of(admin, key)
    admin.pexpire(key, 5_000)
    await store.destroy(record.handle, now_ms=NOW)

    assert 0 <= TOMBSTONE_MS - first < 1000
    assert left_of(admin, key) <= 5_000
    assert admin.hgetall(key) == {b"#x": b"%d" % (NOW - 5)}


@pytest.mark.gen_test
@pytest.mark.parametrize("value", ["-1", "253402300800000", "9" * 40, "1e9", "nan"])
@pytest.mark.parametrize("field", ["#c", "#r", "#a", "#s", "#e", "#d"])
async def test_record_with_a_time_that_no_calendar_has_is_no_session(
    store: RedisStore, admin: redis.Redis, prefix: str, field: str, value: str
) -> None:
    """Somebody who writes to Redis makes no session that pages cannot show; nothing lists or changes it."""
    record = new_record(user="alice", auth_ms=NOW)
    key = f"{prefix}:s:{record.handle}"
    await store.create(record)
    admin.hset(key, field, value)
    before = admin.hgetall(key)

    assert await store.load(record.credential, now_ms=NOW) == UNKNOWN
    assert await store.find(record.handle, now_ms=NOW) is None
    assert await store.of_user("alice", now_ms=NOW) == []
    assert await living(store, [record.credential], now_ms=NOW) == set()
    assert [found async for found in store.scan(now_ms=NOW)] == []
    touch = await store.apply(record.credential, NOTHING, now_ms=NOW, expires_ms=now() + 3_600_000)
    assert touch is Outcome.GONE
    assert await sign_in(store, record, "alice") is Outcome.GONE
    assert admin.hgetall(key) == before
    assert await store.destroy(record.handle, now_ms=NOW) is True

"""Where Redis may evict keys, nobody is told that sessions were listed or ended that an index has lost."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import redis

from stormcellar.stores import Record, StoreUnavailable
from stormcellar.stores.conformance.cases import MINUTE, NOTHING, NOW, handles, new_record
from stormcellar.stores.redis import RedisStore
from stormcellar.stores.redis.eviction import KNOWN_S
from tests.stores.redis.samples import OpenRedis, index_key, now, redis_client, sign_in, until
from tests.support.backends import Backend, Server


@pytest.fixture
def evicting(own_redis: Server) -> Server:
    """A server of each kind that may evict keys with an expiry."""
    with redis_client(own_redis.port) as admin:
        admin.config_set("maxmemory-policy", "volatile-lru")
    return own_redis


def scans(admin: redis.Redis) -> int:
    """Return how often the server was scanned."""
    stats: Any = admin.info("commandstats")
    return int(stats.get("cmdstat_scan", {"calls": 0})["calls"])


async def signed_in(store: RedisStore, count: int) -> list[Record]:
    """Return so many new sessions of alice."""
    records = [new_record(user="alice") for _ in range(count)]
    for record in records:
        await store.create(record)
    return records


@pytest.mark.gen_test
async def test_lost_index_is_noticed(evicting: Server, open_redis: OpenRedis) -> None:
    """Gone, or begun again by a later sign-in: all sessions are found, by one scan for each loss."""  # G14
    store = open_redis(evicting.url, timeout_s=10.0)
    records = await signed_in(store, 3)
    await store.create(new_record(user="bob"))
    with redis_client(evicting.port) as admin:
        listed, scanned = [], []
        for _ in range(2):
            admin.delete(index_key(store._prefix, "alice"))
            records += await signed_in(store, 1)
            for _ in range(2):
                listed.append(handles(await store.of_user("alice", now_ms=NOW)))
                scanned.append(scans(admin))

    assert [len(each) for each in listed] == [4, 4, 5, 5]
    assert listed[-1] == handles(records)
    assert 0 < scanned[0] == scanned[1] < scanned[2] == scanned[3]


@pytest.mark.gen_test
async def test_user_without_an_index_is_noticed(evicting: Server, open_redis: OpenRedis) -> None:
    """The whole index is gone: the sessions are found all the same, and are in it again."""
    store = open_redis(evicting.url, timeout_s=10.0)
    records = await signed_in(store, 2)
    with redis_client(evicting.port) as admin:
        key = index_key(store._prefix, "alice")
        admin.delete(key)

        assert handles(await store.of_user("alice", now_ms=NOW)) == handles(records)
        assert {record.handle.encode() for record in records} < set(admin.zrange(key, 0, -1))
        assert admin.pttl(key) > 0


@pytest.mark.gen_test
async def test_whole_index_stays_whole(evicting: Server, open_redis: OpenRedis) -> None:
    """Sign-ins, changes of the user and sign-outs after the scan need no other one."""
    store = open_redis(evicting.url, timeout_s=10.0)
    first, second = await signed_in(store, 2)
    anonymous = new_record()
    await store.create(anonymous)
    await store.of_user("alice", now_ms=NOW)
    with redis_client(evicting.port) as admin:
        before = scans(admin)

        await sign_in(store, anonymous, "alice")
        await sign_in(store, first, "bob")
        await store.destroy(second.handle, now_ms=NOW)
        [third] = await signed_in(store, 1)
        found = await store.of_user("alice", now_ms=NOW)

        assert handles(found) == handles([anonymous, third])
        assert scans(admin) == before


@pytest.mark.gen_test
async def test_index_that_is_lost_during_the_scan_is_not_trusted(
    evicting: Server, open_redis: OpenRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That call has every session that was there before it, and the next one scans again."""
    store = open_redis(evicting.url, timeout_s=10.0)
    records = await signed_in(store, 2)
    list_handles = store._client.handles
    with redis_client(evicting.port) as admin:

        async def lose(start: str, **options: Any) -> AsyncGenerator[list[bytes], None]:
            async for page in list_handles(start, **options):
                yield page
            admin.delete(index_key(store._prefix, "alice"))
            records.extend(await signed_in(store, 1))
            admin.delete(index_key(store._prefix, "alice"))

        with monkeypatch.context() as patch:
            patch.setattr(store._client, "handles", lose)
            before = await store.of_user("alice", now_ms=NOW)
        after = await store.of_user("alice", now_ms=NOW)

    assert handles(before) == handles(records[:2])
    assert handles(after) == handles(records)


@pytest.mark.gen_test
async def test_scan_that_takes_too_long_is_an_outage(
    evicting: Server, open_redis: OpenRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told that the sessions were listed."""
    store = open_redis(evicting.url, timeout_s=10.0)
    await signed_in(store, 1)

    async def time_out(start: str, **options: Any) -> AsyncGenerator[list[bytes], None]:
        yield []
        raise TimeoutError

    monkeypatch.setattr(store._client, "handles", time_out)

    with pytest.raises(StoreUnavailable):
        await store.of_user("alice", now_ms=NOW)


@pytest.mark.gen_test
async def test_without_eviction_nothing_is_scanned(own_redis: Server, open_redis: OpenRedis) -> None:
    """With noeviction an index that is not there means that the user has no session."""
    store = open_redis(own_redis.url)
    with redis_client(own_redis.port) as admin:
        records = await signed_in(store, 2)

        found = await store.of_user("alice", now_ms=NOW)
        nobody = await store.of_user("nobody", now_ms=NOW)

        assert (handles(found), nobody, scans(admin)) == (handles(records), [], 0)


@pytest.mark.gen_test
async def test_policy_that_cannot_be_read_is_not_trusted(
    each_redis: Backend, open_redis: OpenRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """An account without INFO works; ping names the right, once, and a lost index is noticed."""
    scheme, _, place = each_redis.url.partition("//")
    with redis_client(each_redis.port) as admin:
        admin.execute_command("ACL", "SETUSER", "blind", "on", ">pw", "~*", "&*", "+@all", "-info")
        store = open_redis(f"{scheme}//blind:pw@{place}", timeout_s=10.0)
        records = await signed_in(store, 2)
        admin.delete(index_key(store._prefix, "alice"))

        await store.ping()
        await store.ping()
        found = await store.of_user("alice", now_ms=NOW)

    assert handles(found) == handles(records)
    assert [("+info" in each.message, each.levelno) for each in caplog.records] == [(True, logging.WARNING)]


@pytest.mark.gen_test
@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-ttl", "allkeys-random", "noeviction"])
async def test_ping_warns_of_every_other_policy(
    own_redis: Server, open_redis: OpenRedis, caplog: pytest.LogCaptureFixture, policy: str
) -> None:
    """Once, with what breaks and what to do; and again when it was set right and wrong again."""  # G14
    store = open_redis(own_redis.url)
    with redis_client(own_redis.port) as admin:
        for setting in (policy, policy, "noeviction", policy):
            admin.config_set("maxmemory-policy", setting)
            await store.ping()

    told = [each.message for each in caplog.records]
    assert len(told) == (0 if policy == "noeviction" else 2)
    assert all(f"maxmemory-policy is {policy}; set it to noeviction" in each for each in told)


@pytest.mark.gen_test
async def test_change_of_the_policy_is_noticed(
    own_redis: Server, open_redis: OpenRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server is asked again after a minute."""
    store = open_redis(own_redis.url, timeout_s=10.0)
    await signed_in(store, 1)
    await store.of_user("alice", now_ms=NOW)
    with redis_client(own_redis.port) as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        admin.delete(index_key(store._prefix, "alice"))
        asked_at = store._eviction._asked_at
        assert asked_at is not None
        monkeypatch.setattr(store._eviction, "_asked_at", asked_at - KNOWN_S - 1)

        assert len(await store.of_user("alice", now_ms=NOW)) == 1


@pytest.mark.gen_test
async def test_session_in_use_renews_its_entry(store: RedisStore, admin: redis.Redis, prefix: str) -> None:
    """The first touch of a clock minute adds a lost entry again, with the time that the index has to stay."""
    record, key = new_record(user="alice", seen_ms=NOW // MINUTE * MINUTE), index_key(prefix, "alice")
    await store.create(record)
    admin.delete(key)

    for later_ms, renewed in ((30_000, False), (MINUTE, True)):
        now_ms = record.seen_ms + later_ms
        await store.apply(record.credential, NOTHING, now_ms=now_ms, expires_ms=record.expires_ms + later_ms)
        await until(lambda: not store._index._renewals)
        assert (admin.zscore(key, record.handle) is not None) is renewed

    left: Any = admin.pttl(key)
    assert left > record.deadline_ms - now() - MINUTE


@pytest.mark.gen_test
async def test_memory_that_is_full_loses_sessions_but_lists_those_that_live(
    evicting: Server, open_redis: OpenRedis
) -> None:
    """After real evictions every session that is left is found under its user."""
    store = open_redis(evicting.url, timeout_s=10.0)
    records = [new_record(user=f"user{number}") for number in range(150)]
    for record in records:
        await store.create(record)
    with redis_client(evicting.port) as admin:
        memory: Any = admin.info("memory")
        admin.config_set("maxmemory", memory["used_memory"] - 30_000)
        await store.create(new_record(user="last"))
        stats: Any = admin.info("stats")
        admin.config_set("maxmemory", 0)

    live = [each for each in records if await store.find(each.handle, now_ms=now()) is not None]
    listed = [handles(await store.of_user(str(each.user), now_ms=now())) for each in live]

    assert stats["evicted_keys"] > 0
    assert listed == [handles([each]) for each in live]

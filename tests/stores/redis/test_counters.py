"""What Redis holds of a tally, and what the counters do when Redis fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis
from tornado.ioloop import IOLoop

from stormcellar.stores import TOMBSTONE_MS, Counters, StoreFull, StoreOptions, StoreUnavailable, Tally
from stormcellar.stores.conformance.cases import HOUR, NOW, ONE, SECOND, THREE, new_key, takes
from stormcellar.stores.redis import RedisStore
from tests.stores.redis.samples import OpenRedis, eventually, full, left_of, paused
from tests.support.backends import Backend, Server
from tests.support.proxy import DroppingProxy

GIVEN = Tally(True, 1, 0)

CHANGES: dict[str, tuple[bytes, Callable[[Counters, str], Awaitable[object]]]] = {
    "take": (b"EVALSHA", lambda counters, key: counters.take(key, THREE, now_ms=NOW)),
    "give_back": (b"EVALSHA", lambda counters, key: counters.give_back(key, GIVEN, now_ms=NOW)),
    "forget": (b"DEL", lambda counters, key: counters.forget(key)),
}


@pytest.fixture
def store(each_redis: Backend, io_loop: IOLoop) -> Iterator[RedisStore]:
    """A store under the prefix `tallies` on each kind of Redis."""
    opened = RedisStore.from_url(each_redis.url, StoreOptions("tallies"))
    yield opened
    io_loop.run_sync(opened.aclose)


@pytest.mark.gen_test
async def test_a_tally_is_one_hash_that_expires_by_itself(store: RedisStore, admin: redis.Redis) -> None:
    """The server keeps it ten minutes longer than it counts; giving back does not move that."""
    counters, key = store.counters(), new_key()
    second = (await takes(counters, key, 2, ONE))[0]
    await counters.take(key, ONE, now_ms=second.next_ms)
    ends_ms = second.next_ms + HOUR
    stays_ms = HOUR + TOMBSTONE_MS
    off = [stays_ms - left_of(admin, f"tallies:t:{key}")]

    await counters.give_back(key, second, now_ms=NOW)

    off.append(stays_ms - left_of(admin, f"tallies:t:{key}"))
    assert [0 <= ms < SECOND for ms in off] == [True, True]
    assert admin.hgetall(f"tallies:t:{key}") == {
        b"count": b"1",
        b"next": b"%d" % (second.next_ms + 20 * SECOND),
        b"expires": b"%d" % ends_ms,
    }


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "put",
    [
        lambda admin, key: admin.set(key, "x"),
        lambda admin, key: admin.sadd(key, "x"),
        lambda admin, key: admin.hset(key, "count", 9),
        lambda admin, key: admin.hset(key, mapping={"count": "many", "next": 0, "expires": NOW + HOUR}),
    ],
    ids=["string", "set", "partial", "no-number"],
)
async def test_what_is_no_tally_counts_as_none(
    store: RedisStore, admin: redis.Redis, put: Callable[[redis.Redis, str], Any]
) -> None:
    """A foreign type or a broken tally is none, and gives way to the first one taken."""
    counters, key = store.counters(), new_key()
    put(admin, f"tallies:t:{key}")

    before = await counters.peek(key, now_ms=NOW)
    await counters.give_back(key, GIVEN, now_ms=NOW)
    taken = await takes(counters, key, 2)

    assert before == Tally(False, 0, 0)
    assert taken == [Tally(True, 1, 0), Tally(True, 2, 0)]


@pytest.mark.gen_test
async def test_a_full_server_takes_none(each_redis: Backend, store: RedisStore, admin: redis.Redis) -> None:
    """Without memory a take is StoreFull and counts nothing; looking and forgetting work."""
    counters, key = store.counters(), new_key()
    await counters.take(key, THREE, now_ms=NOW)

    with full(each_redis):
        with pytest.raises(StoreFull):
            await counters.take(key, THREE, now_ms=NOW)
        told = await counters.peek(key, now_ms=NOW)
        await counters.forget(key)

    assert told.count == 1
    assert (await counters.peek(key, now_ms=NOW)).count == 0


@pytest.mark.gen_test
async def test_a_frozen_server_is_told_within_the_budget(each_redis: Backend, open_redis: OpenRedis) -> None:
    """Nothing is admitted by a server that does not answer, and it counts again when it does."""  # E12, G13
    store = open_redis(each_redis.url, timeout_s=0.5)
    counters, key = store.counters(), new_key()
    await eventually(store.ping)

    with paused(each_redis):
        calls = [counters.peek(key, now_ms=NOW), *(change(counters, key) for _, change in CHANGES.values())]
        answers = await asyncio.gather(*calls, return_exceptions=True)

    assert {type(answer) for answer in answers} == {StoreUnavailable}
    fresh = new_key()
    assert await eventually(lambda: counters.take(fresh, ONE, now_ms=NOW)) == Tally(
        True, 1, NOW + 10 * SECOND
    )


@pytest.mark.gen_test
async def test_no_server_and_a_closed_store_are_unavailable(own_redis: Server, open_redis: OpenRedis) -> None:
    """A killed server, and a store that was closed, admit nothing."""  # E12
    store = open_redis(own_redis.url, timeout_s=1.0)
    counters = store.counters()
    await counters.take("key", THREE, now_ms=NOW)
    own_redis.kill()

    with pytest.raises(StoreUnavailable) as down:
        await counters.take("key", THREE, now_ms=NOW)
    await store.aclose()
    with pytest.raises(StoreUnavailable):
        await counters.take("key", THREE, now_ms=NOW)

    assert down.value.__cause__ is not None


@pytest.mark.gen_test
@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_whose_reply_is_lost_is_sent_once(
    redis8: Backend, open_redis: OpenRedis, name: str
) -> None:
    """The server sees one command, and the caller is told that the outcome is unknown."""
    command, change = CHANGES[name]
    async with DroppingProxy(redis8.port, protocol="redis") as proxy:
        store = open_redis(redis8.url.replace(str(redis8.port), str(proxy.port)))
        counters, key = store.counters(), new_key()
        for _, known in CHANGES.values():
            await known(counters, new_key())
        await takes(counters, key, 2)
        proxy.requests.clear()
        proxy.drop_replies(lambda request: command in request)

        with pytest.raises(StoreUnavailable):
            await change(counters, key)

        assert proxy.count(command) == 1
        counts = {"take": 3, "give_back": 1, "forget": 0}
        assert (await counters.peek(key, now_ms=NOW)).count == counts[name]
        await store.aclose()
        await asyncio.sleep(0.05)  # The proxy sees the connections end before it is closed itself.

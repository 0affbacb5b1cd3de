"""The push of ended sessions over Redis: it finds its way back, and it ends when told to."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from stormcellar.stores import Handle, StoreUnavailable
from stormcellar.stores.conformance.cases import new_record
from stormcellar.stores.conformance.faults import Network
from tests.conftest import StartServer
from tests.stores.redis.samples import OpenRedis, announced, collect, eventually, now, redis_client
from tests.support.backends import Backend, Server
from tests.support.cluster import add_replica, client_of


@pytest.mark.gen_test
async def test_the_push_comes_back_after_a_restart(own_redis: Server, open_redis: OpenRedis) -> None:
    """A listener outlives its server, and hears of what ends once that is back."""
    store = open_redis(own_redis.url, timeout_s=0.6)
    heard: list[Handle | None] = []
    listening = asyncio.ensure_future(collect(store, heard))
    try:
        assert await announced(store, heard)
        own_redis.kill()
        await asyncio.sleep(0.2)
        own_redis.start()
        await eventually(store.ping)

        assert await announced(store, heard)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


@pytest.mark.gen_test
async def test_a_killed_subscriber_hears_again_at_once(own_redis: Server, open_redis: OpenRedis) -> None:
    """Each time that its connection is closed it is told of the gap, and then of what ends."""
    store = open_redis(own_redis.url)
    async with aclosing(store.gone()) as announcements, asyncio.timeout(10):
        assert await anext(announcements) is None
        for _ in range(3):
            with redis_client(own_redis.port) as admin:
                assert admin.execute_command("CLIENT KILL TYPE pubsub") == 1

            assert await asyncio.wait_for(anext(announcements), 1.0) is None
            record = new_record()
            await store.create(record)
            await store.destroy(record.handle, now_ms=now())
            assert await asyncio.wait_for(anext(announcements), 1.0) == record.handle


@pytest.mark.gen_test
async def test_the_push_follows_a_fail_over(start_server: StartServer, open_redis: OpenRedis) -> None:
    """A process that only listens hears of sessions that end on the new primary; it is told of the gap."""
    primary, replica = (start_server("redis_cluster") for _ in range(2))
    add_replica(replica, primary)
    listener, other = (open_redis(primary.url, timeout_s=0.6, prefix="test") for _ in range(2))
    heard: list[Handle | None] = []
    listening = asyncio.ensure_future(collect(listener, heard))
    try:
        assert await announced(other, heard)
        heard.clear()
        primary.kill()
        with client_of(replica) as admin:
            admin.execute_command("CLUSTER FAILOVER", "TAKEOVER")
        await eventually(other.ping)

        assert await announced(other, heard)
        assert heard[0] is None
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


@pytest.mark.gen_test
async def test_a_silent_connection_is_given_up(start_server: StartServer, open_redis: OpenRedis) -> None:
    """A connection that no longer carries anything, in either direction, is replaced within seconds."""
    server = start_server("redis8")
    async with Network(server.port) as network:
        store = open_redis(f"redis://127.0.0.1:{network.port}/0", timeout_s=0.6, prefix="test")
        other = open_redis(server.url, prefix="test")
        iterator = store.gone()
        assert await anext(iterator) is None
        network.abandon()

        assert await asyncio.wait_for(anext(iterator), 10) is None
        record = new_record()
        await other.create(record)
        await other.destroy(record.handle, now_ms=now())
        assert await anext(iterator) == record.handle
        await iterator.aclose()


@pytest.mark.gen_test
async def test_strange_messages_on_the_channel_are_passed_over(
    each_redis: Backend, open_redis: OpenRedis
) -> None:
    """What somebody else publishes on our channel neither ends the listener nor reaches its caller."""
    store = open_redis(each_redis.url)
    heard: list[Handle | None] = []
    listening = asyncio.ensure_future(collect(store, heard))
    assert await announced(store, heard)

    with redis_client(each_redis.port) as admin:
        for message in (b"", b"\xff\xfe", b"a b", b"x\n", b"\0"):
            admin.publish(f"{store._prefix}:gone", message)
    assert await announced(store, heard)
    listening.cancel()

    assert heard[0] is None
    assert all(len(handle or "") == 22 for handle in heard[1:])


@pytest.mark.gen_test
async def test_closing_the_store_ends_its_listeners(each_redis: Backend, open_redis: OpenRedis) -> None:
    """One that waits for a message and one that never started both end, and the store stays closed."""
    store = open_redis(each_redis.url)
    heard: list[Handle | None] = []
    listening = asyncio.ensure_future(collect(store, heard))
    assert await announced(store, heard)

    await store.aclose()
    await asyncio.wait_for(listening, 5)

    assert [handle async for handle in store.gone()] == []
    with pytest.raises(StoreUnavailable):
        await store.ping()


@pytest.mark.gen_test
async def test_closing_the_store_ends_a_listener_that_waits_to_reconnect(
    open_redis: OpenRedis,
) -> None:
    """A listener without a server tries again and again until the store is closed."""
    store = open_redis("redis://127.0.0.1:1/0")
    listening = asyncio.ensure_future(collect(store, []))
    await asyncio.sleep(0.35)
    assert not listening.done()

    await store.aclose()

    await asyncio.wait_for(listening, 5)


@pytest.mark.gen_test
async def test_a_cancelled_listener_is_cancelled(each_redis: Backend, open_redis: OpenRedis) -> None:
    """Cancelling who listens is not mistaken for the end of the store, and gives its connection back."""
    store = open_redis(each_redis.url)
    heard: list[Handle | None] = []
    listening = asyncio.ensure_future(collect(store, heard))
    assert await announced(store, heard)

    listening.cancel()
    [outcome] = await asyncio.gather(listening, return_exceptions=True)
    with redis_client(each_redis.port) as admin:
        for _ in range(100):
            [(_, left)] = admin.pubsub_numsub(f"{store._prefix}:gone")
            if left == 0:
                break
            await asyncio.sleep(0.02)

    assert isinstance(outcome, asyncio.CancelledError)
    assert left == 0


@pytest.mark.gen_test
async def test_closing_an_iterator_ends_that_one_alone(each_redis: Backend, open_redis: OpenRedis) -> None:
    """One listener's end leaves another of the same store listening."""
    store = open_redis(each_redis.url)
    heard: list[Handle | None] = []
    other = asyncio.ensure_future(collect(store, heard))
    iterator: Any = store.gone()
    first = asyncio.ensure_future(anext(iterator))
    while not first.done():
        await announced(store, heard)
        heard.clear()

    await iterator.aclose()

    assert await announced(store, heard)
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)


@pytest.mark.gen_test(timeout=60)
async def test_a_listener_can_be_cancelled_at_any_step(each_redis: Backend, open_redis: OpenRedis) -> None:
    """While it connects, subscribes or waits: it ends, and leaves nothing behind."""
    for steps in range(60):
        store = open_redis(each_redis.url)
        listening = asyncio.ensure_future(collect(store, []))
        for _ in range(steps):
            await asyncio.sleep(0)
        await asyncio.sleep(0.0002 * (steps % 10))
        listening.cancel()
        done, _ = await asyncio.wait([listening], timeout=5)

        assert done, f"cancelled after {steps} steps"
        await store.aclose()

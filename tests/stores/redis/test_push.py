"""The push of ended sessions over Redis: it finds its way back, and it ends when told to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stormcellar.stores import Handle, StoreUnavailable
from tests.stores.redis.samples import OpenRedis, announced, collect, eventually, redis_client
from tests.support.backends import Backend, Server


@pytest.mark.gen_test
async def test_the_push_comes_back_after_a_restart(own_redis: Server, open_redis: OpenRedis) -> None:
    """A listener outlives its server, and hears of what ends once that is back."""
    store = open_redis(own_redis.url, timeout_s=0.6)
    heard: list[Handle] = []
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
async def test_strange_messages_on_the_channel_are_passed_over(
    each_redis: Backend, open_redis: OpenRedis
) -> None:
    """What somebody else publishes on our channel neither ends the listener nor reaches its caller."""
    store = open_redis(each_redis.url)
    heard: list[Handle] = []
    listening = asyncio.ensure_future(collect(store, heard))
    assert await announced(store, heard)

    with redis_client(each_redis.port) as admin:
        for message in (b"", b"\xff\xfe", b"a b", b"x\n", b"\0"):
            admin.publish(f"{store._prefix}:gone", message)
    assert await announced(store, heard)
    listening.cancel()

    assert all(len(handle) == 22 for handle in heard)


@pytest.mark.gen_test
async def test_closing_the_store_ends_its_listeners(each_redis: Backend, open_redis: OpenRedis) -> None:
    """One that waits for a message and one that never started both end, and the store stays closed."""
    store = open_redis(each_redis.url)
    heard: list[Handle] = []
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
    heard: list[Handle] = []
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
    heard: list[Handle] = []
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

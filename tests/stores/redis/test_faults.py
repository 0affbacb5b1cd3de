"""What the Redis store does when replies are lost, servers freeze or restart, and callers give up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from secrets import token_urlsafe
from typing import Any

import pytest
import redis

from stormcellar.stores import Delta, Handle, Record, StoreOptions, StoreUnavailable
from stormcellar.stores.conformance.cases import NOTHING, living, new_record
from stormcellar.stores.redis import RedisStore
from tests.stores.redis.samples import (
    OpenRedis,
    announced,
    collect,
    eventually,
    now,
    paused,
    redis_client,
    sign_in,
)
from tests.support.backends import Backend, Server
from tests.support.proxy import DroppingProxy

Operation = Callable[[RedisStore, Record], Awaitable[Any]]

MUTATIONS: dict[str, Operation] = {
    "create": lambda store, record: store.create(new_record()),
    "create_bound": lambda store, record: store.create(new_record(user="alice")),
    "apply": lambda store, record: store.apply(record.credential, NOTHING, now_ms=now(), expires_ms=now()),
    "rotate": lambda store, record: sign_in(store, record, None),
    "rotate_bound": lambda store, record: sign_in(store, record, "bob"),
    "destroy": lambda store, record: store.destroy(record.handle, now_ms=now()),
}

READS: dict[str, Operation] = {
    "load": lambda store, record: store.load(record.credential, now_ms=now()),
    "find": lambda store, record: store.find(record.handle, now_ms=now()),
    "states": lambda store, record: living(store, [record.credential], now_ms=now()),
    "of_user": lambda store, record: store.of_user("alice", now_ms=now()),
    "ping": lambda store, record: store.ping(),
}


@asynccontextmanager
async def behind_proxy(backend: Backend, **options: Any) -> AsyncIterator[tuple[RedisStore, DroppingProxy]]:
    """A store that reaches *backend* through a proxy, the scripts known to the server already."""
    async with DroppingProxy(backend.port, protocol="redis") as proxy:
        url = backend.url.replace(str(backend.port), str(proxy.port))
        store = RedisStore.from_url(url, StoreOptions(f"test-{token_urlsafe(6)}", **options))
        client: Any = store._client._driver
        if "cluster" in backend.url:
            # A cluster tells its clients where its nodes are, which would lead them round the proxy.
            client.nodes_manager.address_remap = lambda _: ("127.0.0.1", proxy.port)
        try:
            await eventually(store.ping)
            for operation in MUTATIONS.values():
                record = new_record()
                await store.create(record)
                await operation(store, record)
            yield store, proxy
        finally:
            await store.aclose()
            await asyncio.sleep(0.05)  # The proxy sees the connections end before it is closed itself.


@pytest.mark.gen_test
@pytest.mark.parametrize("hang", [False, True], ids=["closed", "silent"])
@pytest.mark.parametrize("name", MUTATIONS)
async def test_a_mutation_whose_reply_is_lost_is_sent_once(
    each_redis: Backend, name: str, hang: bool
) -> None:
    """The server sees one command, and the caller is told that the outcome is unknown."""
    async with behind_proxy(each_redis, timeout_s=0.6) as (store, proxy):
        record = new_record()
        await store.create(record)
        proxy.requests.clear()
        proxy.drop_replies(lambda request: b"EVAL" in request, hang=hang)

        with pytest.raises(StoreUnavailable) as caught:
            await MUTATIONS[name](store, record)
        await asyncio.sleep(0.05)

        assert proxy.count(b"EVAL") == 1
        assert caught.value.__cause__ is not None


@pytest.mark.gen_test
@pytest.mark.parametrize("hang", [False, True], ids=["closed", "silent"])
@pytest.mark.parametrize("name", READS)
async def test_a_read_whose_reply_is_lost_is_asked_once_more(
    each_redis: Backend, name: str, hang: bool
) -> None:
    """One lost reply costs a second command and nothing else; the answer is the usual one."""
    async with behind_proxy(each_redis, timeout_s=1.0) as (store, proxy):
        record = new_record(user="alice")
        await store.create(record)
        usual = await READS[name](store, record)
        words = (b"HGETALL", b"HMGET", b"EVAL")
        proxy.requests.clear()
        proxy.drop_replies(lambda request: any(word in request for word in words), hang=hang)

        answer = await READS[name](store, record)

        commands = {"load": b"HGETALL", "find": b"HGETALL", "states": b"HMGET", "ping": b"EVALSHA"}
        assert answer == usual
        assert proxy.count(commands.get(name, b"EVAL")) == 2


@pytest.mark.gen_test
async def test_a_read_is_asked_twice_at_most(each_redis: Backend) -> None:
    """A server that never answers is asked two times within one budget."""
    async with behind_proxy(each_redis, timeout_s=0.6) as (store, proxy):
        record = new_record()
        await store.create(record)
        proxy.requests.clear()
        proxy.drop_replies(lambda request: b"HGETALL" in request, times=10)

        with pytest.raises(StoreUnavailable):
            await store.load(record.credential, now_ms=now())

        assert proxy.count(b"HGETALL") == 2


@pytest.mark.gen_test
async def test_what_only_tidies_up_is_not_waited_for_twice(each_redis: Backend) -> None:
    """A destroy whose index entry could not be removed has destroyed, and says so."""
    async with behind_proxy(each_redis, timeout_s=0.6) as (store, proxy):
        record = new_record(user="carol")
        await store.create(record)
        proxy.drop_replies(lambda request: b"ZREM" in request)

        destroyed = await store.destroy(record.handle, now_ms=now())

        assert destroyed is True
        assert await store.of_user("carol", now_ms=now()) == []


@pytest.mark.gen_test
async def test_160_parallel_calls_wait_their_turn(each_redis: Backend, open_redis: OpenRedis) -> None:
    """More calls than connections are served without an error from a pool."""
    store = open_redis(each_redis.url, timeout_s=10.0)
    records = [new_record(user=f"user{number % 7}") for number in range(160)]

    await asyncio.gather(*(store.create(record) for record in records))
    loaded = await asyncio.gather(*(store.load(record.credential, now_ms=now()) for record in records))
    some = [record.credential for record in records[:3]]
    alive = await asyncio.gather(*(living(store, some, now_ms=now()) for _ in range(160)))

    assert loaded == records
    assert alive == [set(some)] * 160


@pytest.mark.gen_test
async def test_a_cancelled_call_leaves_no_reply_behind(each_redis: Backend, open_redis: OpenRedis) -> None:
    """Cancelled at each step it takes, a load never answers the next caller."""  # D8
    store = open_redis(each_redis.url)
    first, second = new_record(data={"of": b"first"}), new_record(data={"of": b"second"})
    await store.create(first)
    await store.create(second)
    answers, finished = [], 0

    for steps in range(60):
        call = asyncio.ensure_future(store.load(first.credential, now_ms=now()))
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        [outcome] = await asyncio.gather(call, return_exceptions=True)
        finished += isinstance(outcome, Record)
        answers.append(await store.load(second.credential, now_ms=now()))

    assert answers == [second] * 60
    assert finished < 60


@pytest.mark.gen_test
async def test_a_reply_that_comes_after_the_cancel_reaches_nobody(
    each_redis: Backend, open_redis: OpenRedis
) -> None:
    """With the reply still to come the call is cancelled; the next caller gets its own."""  # D8
    store = open_redis(each_redis.url, timeout_s=5.0)
    first, second = new_record(), new_record()
    await store.create(first)
    await store.create(second)
    with paused(each_redis):
        call = asyncio.ensure_future(store.load(first.credential, now_ms=now()))
        await asyncio.sleep(0.1)
        call.cancel()
        next_call = asyncio.ensure_future(store.load(second.credential, now_ms=now()))
        await asyncio.sleep(0.1)

    assert await next_call == second
    assert call.cancelled()


@pytest.mark.gen_test
async def test_cancelled_mutations_happened_whole_or_not_at_all(
    each_redis: Backend, open_redis: OpenRedis
) -> None:
    """Cancelled at each step, an apply has put both keys or neither."""
    store = open_redis(each_redis.url)
    seen = set()

    for steps in range(60):
        record = new_record(data={})
        await store.create(record)
        both = Delta(put={"a": b"1", "b": b"1"})
        call = asyncio.ensure_future(store.apply(record.credential, both, now_ms=now(), expires_ms=None))
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        loaded = await store.load(record.credential, now_ms=now())
        assert isinstance(loaded, Record)
        seen.add(tuple(loaded.data))

    assert {(), ("a", "b")} >= seen


@pytest.mark.gen_test
async def test_cancelled_calls_keep_no_connection(each_redis: Backend, open_redis: OpenRedis) -> None:
    """After many groups of calls were cancelled half way, 160 calls succeed."""
    store = open_redis(each_redis.url)
    record = new_record()
    await store.create(record)

    for steps in range(20):
        crowd = [asyncio.ensure_future(store.load(record.credential, now_ms=now())) for _ in range(100)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for call in crowd[::2]:
            call.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)

    answers = await asyncio.gather(*(store.load(record.credential, now_ms=now()) for _ in range(160)))
    assert answers == [record] * 160


@pytest.mark.gen_test
async def test_a_frozen_server_is_told_within_the_budget(each_redis: Backend, open_redis: OpenRedis) -> None:
    """Whatever is asked of a silent server fails after one budget; woken up, it serves again."""  # G13
    store = open_redis(each_redis.url, timeout_s=0.5)
    record = new_record(user="alice")
    await eventually(store.ping)
    await store.create(record)
    began = time.monotonic()

    with paused(each_redis):
        calls = [operation(store, record) for operation in (*MUTATIONS.values(), *READS.values())]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        took_s = time.monotonic() - began

    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert [answer.__cause__ for answer in answers if not answer.__cause__] == []
    assert took_s < 1.5
    after = new_record()
    await eventually(lambda: store.create(after))
    assert await store.load(after.credential, now_ms=now()) == after


@pytest.mark.gen_test
async def test_a_frozen_server_fails_a_crowd_together(each_redis: Backend, open_redis: OpenRedis) -> None:
    """160 calls on a frozen server all end within the time-out of one, also those that waited for a slot."""
    store = open_redis(each_redis.url, timeout_s=0.5)
    record = new_record()
    await eventually(store.ping)
    await store.create(record)
    began = time.monotonic()

    with paused(each_redis):
        calls = [store.load(record.credential, now_ms=now()) for _ in range(160)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        took_s = time.monotonic() - began

    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert took_s < 2.0
    await eventually(store.ping)
    assert await store.load(record.credential, now_ms=now()) == record


@pytest.mark.gen_test
async def test_a_server_that_comes_back_is_found_again(own_redis: Server, open_redis: OpenRedis) -> None:
    """Killed and started again on its port, a server serves the same store, without a restart of ours."""
    store = open_redis(own_redis.url, timeout_s=0.6)
    crowd = [new_record() for _ in range(40)]
    await asyncio.gather(*(store.create(record) for record in crowd))
    own_redis.kill()

    with pytest.raises(StoreUnavailable) as caught:
        await store.load(crowd[0].credential, now_ms=now())
    own_redis.start()
    await eventually(store.ping)

    after = [new_record() for _ in range(40)]
    await asyncio.gather(*(store.create(record) for record in after))
    loaded = await asyncio.gather(*(store.load(record.credential, now_ms=now()) for record in after))
    assert loaded == after
    assert caught.value.__cause__ is not None


@pytest.mark.gen_test
async def test_polling_alone_finds_a_restarted_server(own_redis: Server, open_redis: OpenRedis) -> None:
    """A process that only asks for states gets an answer from a restarted server at the first try."""
    store = open_redis(own_redis.url)
    crowd = [new_record() for _ in range(40)]
    await asyncio.gather(*(store.create(record) for record in crowd))
    own_redis.kill()
    own_redis.start()

    alive = await living(store, [record.credential for record in crowd], now_ms=now())

    assert alive == set()


@pytest.mark.gen_test
async def test_no_server_at_all_is_unavailable(open_redis: OpenRedis) -> None:
    """A refused connection is an outage, for every scheme."""
    for url in ("redis://127.0.0.1:1/0", "redis+cluster://127.0.0.1:1", "redis+unix:///nowhere/redis.sock"):
        with pytest.raises(StoreUnavailable):
            await open_redis(url, timeout_s=1.0).ping()


@pytest.mark.gen_test
async def test_closing_after_a_fault_leaves_no_connection(each_redis: Backend, open_redis: OpenRedis) -> None:
    """A store closed right after an error has closed its connections, those of a listener included."""
    with redis_client(each_redis.port) as admin:
        before = connections(admin)
        store = open_redis(each_redis.url, timeout_s=0.5)
        await eventually(store.ping)
        heard: list[Handle] = []
        listening = asyncio.ensure_future(collect(store, heard))
        assert await announced(store, heard)
        with paused(each_redis), pytest.raises(StoreUnavailable):
            await store.destroy(new_record().handle, now_ms=now())

        await store.aclose()
        await listening
        for _ in range(100):
            if connections(admin) == before:
                break
            await asyncio.sleep(0.02)

        assert connections(admin) == before


def connections(admin: redis.Redis) -> int:
    """Return how many clients the server has."""
    info: Any = admin.info("clients")
    return int(info["connected_clients"])

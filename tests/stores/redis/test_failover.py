"""A server that becomes a replica behind its address: connections leave it, and no write is sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import exceptions

from stormcellar.stores import Absent, Delta, Outcome, Record, StoreUnavailable
from stormcellar.stores.conformance.cases import ENDED, NOW, UNKNOWN, new_record
from stormcellar.stores.redis import RedisStore
from stormcellar.stores.redis.client import BATCH
from stormcellar.stores.redis.connections import is_no_primary
from tests.conftest import StartServer
from tests.stores.redis.samples import OpenRedis, follow, now, redis_client, sign_in
from tests.support.proxy import DroppingProxy

Call = Callable[[RedisStore, Record], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "create": lambda store, record: store.create(new_record()),
    "apply": lambda store, record: store.apply(
        record.credential, Delta(put={"k": b"2"}), now_ms=now(), expires_ms=record.expires_ms + 1
    ),
    "rotate": lambda store, record: sign_in(store, record, "alice"),
    "destroy": lambda store, record: store.destroy(record.handle, now_ms=now()),
}

KINDS = ["redis8", "redis6", "valkey"]


@asynccontextmanager
async def behind_one_address(
    kind: str, start_server: StartServer, open_redis: OpenRedis, **options: Any
) -> AsyncIterator[tuple[RedisStore, DroppingProxy, Callable[..., None]]]:
    """A store on a primary behind a proxy, and a function that makes the replica the primary."""
    fast = ["--repl-diskless-sync-delay", "0"]
    old, new = start_server(kind, extra=fast), start_server(kind, extra=fast)
    follow(new, old)

    def fail_over(*, keep_replica: bool = True) -> None:
        with redis_client(old.port) as admin, redis_client(new.port) as other:
            admin.publish("nobody", "")  # WAIT is for what its own client wrote
            assert admin.wait(1, 5000) == 1
            other.replicaof("NO", "ONE")
            if not keep_replica:  # read-only, with the data of the moment
                admin.replicaof("127.0.0.1", "1")
        if keep_replica:
            follow(old, new)
        proxy.target_port = new.port

    async with DroppingProxy(old.port, protocol="redis") as proxy:
        store = open_redis(f"redis://127.0.0.1:{proxy.port}/0", **options)
        try:
            yield store, proxy, fail_over
        finally:
            await store.aclose()
            await asyncio.sleep(0.05)


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CALLS)
async def test_second_call_reaches_the_new_primary(
    kind: str, name: str, start_server: StartServer, open_redis: OpenRedis
) -> None:
    """The call that the replica refused is sent once; the next one is served, without a restart."""
    async with behind_one_address(kind, start_server, open_redis) as (store, proxy, fail_over):
        first, second = new_record(), new_record()
        for record in (first, second):
            await store.create(record)
        await CALLS[name](store, new_record())
        fail_over()
        proxy.requests.clear()

        with pytest.raises(StoreUnavailable):
            await CALLS[name](store, first)
        sent = proxy.count(b"EVAL")
        answer = await CALLS[name](store, second)

        assert (sent, answer) in [(1, None), (1, True), (1, Outcome.APPLIED)]


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", KINDS)
async def test_one_refusal_is_enough_for_all_connections(
    kind: str, start_server: StartServer, open_redis: OpenRedis
) -> None:
    """Of twenty connections none stays with the old primary: there, reads answer with old data."""
    async with behind_one_address(kind, start_server, open_redis) as (store, _, fail_over):
        record = new_record()
        await store.create(record)

        async def load_often() -> set[type | Absent]:
            loads = (store.load(record.credential, now_ms=now()) for _ in range(20 * BATCH))
            answers = await asyncio.gather(*loads)
            return {answer if isinstance(answer, Absent) else type(answer) for answer in answers}

        before = await load_often()
        fail_over(keep_replica=False)
        with pytest.raises(StoreUnavailable):
            await store.destroy(record.handle, now_ms=NOW)
        destroyed = await store.destroy(record.handle, now_ms=NOW)

        assert (before, destroyed) == ({Record}, True)
        assert await load_often() == {ENDED}


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", KINDS)
async def test_ping_finds_the_new_primary_by_itself(
    kind: str, start_server: StartServer, open_redis: OpenRedis
) -> None:
    """It changes nothing, so it is sent again: readiness does not notice the failover."""
    async with behind_one_address(kind, start_server, open_redis) as (store, _, fail_over):
        await store.ping()
        fail_over()

        await store.ping()


@pytest.mark.gen_test
async def test_time_out_ends_all_connections(start_server: StartServer, open_redis: OpenRedis) -> None:
    """Where the old primary is silent, only one call waits for it, not one for each connection."""
    async with behind_one_address("redis8", start_server, open_redis, timeout_s=1.0) as (store, proxy, _):
        record = new_record()
        await store.create(record)
        await asyncio.gather(*(store.load(record.credential, now_ms=now()) for _ in range(5 * BATCH)))
        proxy.target_port = start_server("redis8").port
        proxy.drop_replies(lambda request: True, hang=True)

        with pytest.raises(StoreUnavailable):
            await store.destroy(record.handle, now_ms=now())

        loads = (store.load(record.credential, now_ms=now()) for _ in range(2 * BATCH))
        assert await asyncio.gather(*loads) == [UNKNOWN] * (2 * BATCH)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exceptions.ReadOnlyError("You can't write against a read only replica."), True),
        (exceptions.MasterDownError("Link with MASTER is down"), True),
        (exceptions.ResponseError("Error running script: @user_script:9: -READONLY You can't write"), True),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), True),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), False),
        (exceptions.NoScriptError("No matching script."), False),
    ],
)
def test_refusals_of_a_server_that_is_no_primary(error: exceptions.ResponseError, expected: bool) -> None:
    """Each names the state of the server; an error about a key is none of them."""
    assert is_no_primary(error) is expected

"""`?wait=1`: a session that begins, rotates or ends is acknowledged when a replica has it, or not at all."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stormcellar.stores import Outcome, Record, StoreOptions, StoreRefused, StoreUnavailable
from stormcellar.stores.conformance.cases import ENDED, NOTHING, NOW, new_record
from stormcellar.stores.errors import problem_of
from stormcellar.stores.redis import RedisStore
from tests.conftest import StartServer
from tests.stores.redis.samples import OpenRedis, follow, now, redis_client, sign_in
from tests.support.backends import Backend, Server
from tests.support.proxy import DroppingProxy

CALLS: dict[str, Callable[[RedisStore, Record], Awaitable[Any]]] = {
    "create": lambda store, record: store.create(new_record(user="alice")),
    "rotate": lambda store, record: sign_in(store, record, "alice"),
    "destroy": lambda store, record: store.destroy(record.handle, now_ms=NOW),
}


@pytest.fixture(params=["redis8", "redis6", "valkey"])
def pair(request: pytest.FixtureRequest, start_server: StartServer) -> tuple[Server, Server]:
    """A primary and its replica."""
    primary, replica = (
        start_server(request.param, extra=["--repl-diskless-sync-delay", "0"]) for _ in range(2)
    )
    follow(replica, primary)
    return primary, replica


@pytest.mark.gen_test
async def test_acknowledged_is_on_the_replica(pair: tuple[Server, Server], open_redis: OpenRedis) -> None:
    """After each call the replica has what the primary has."""
    primary, replica = pair
    store = open_redis(f"{primary.url}?wait=1")
    record = new_record()
    with redis_client(replica.port) as admin:
        key, seen = f"{store._prefix}:s:{record.handle}", []
        await store.create(record)
        seen.append(admin.hexists(key, "#v"))
        outcome = await sign_in(store, record, "alice")
        seen.append(admin.hget(key, "#u") == b"alice")
        destroyed = await store.destroy(record.handle, now_ms=NOW)
        seen.append(admin.hkeys(key) == [b"#x"])

    assert (seen, outcome, destroyed) == ([True] * 3, Outcome.APPLIED, True)


@pytest.mark.gen_test
@pytest.mark.parametrize("name", CALLS)
async def test_unconfirmed_write_is_done_and_told_as_such(
    pair: tuple[Server, Server], open_redis: OpenRedis, name: str
) -> None:
    """A silent replica: the call fails within its time-out and says why; a write of data does not wait."""
    primary, replica = pair
    store = open_redis(f"{primary.url}?wait=1", timeout_s=2.0)
    record = new_record()
    await store.create(record)
    replica.pause()
    began = time.monotonic()

    with pytest.raises(StoreUnavailable, match="the call, but 0 of 1 replicas have confirmed its state"):
        await CALLS[name](store, record)
    took_s = time.monotonic() - began
    outcome = await store.apply(record.credential, NOTHING, now_ms=now(), expires_ms=None)

    assert 0.6 <= took_s < 2.0
    assert outcome is (Outcome.APPLIED if name == "create" else Outcome.GONE)
    replica.resume()


@pytest.mark.gen_test
async def test_repeated_sign_out_is_not_confirmed_by_the_first(
    pair: tuple[Server, Server], prefix: str
) -> None:
    """Over whichever connection a destroy is repeated, it returns only when the replica has the end."""
    primary, replica = pair
    store, other = (
        RedisStore.from_url(f"{primary.url}?wait=1", StoreOptions(prefix, timeout_s=1.0)) for _ in range(2)
    )
    record = new_record()
    await store.create(record)
    replica.pause()

    for each in (store, other):
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            await each.destroy(record.handle, now_ms=NOW)
    replica.resume()
    await asyncio.to_thread(follow, replica, primary)

    again = await other.destroy(record.handle, now_ms=NOW)
    loaded = await store.load(record.credential, now_ms=now())
    for each in (store, other):
        await each.aclose()
    assert (again, loaded) == (False, ENDED)


@pytest.mark.gen_test
async def test_sessions_of_a_user_are_over_only_when_a_replica_knows(
    pair: tuple[Server, Server], open_redis: OpenRedis
) -> None:
    """After a destroy without confirmation, the user's list is not told without the session before that."""
    primary, replica = pair
    store = open_redis(f"{primary.url}?wait=1", timeout_s=1.0)
    record = new_record(user="alice")
    await store.create(record)
    replica.pause()
    with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
        await store.destroy(record.handle, now_ms=NOW)

    with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
        await store.of_user("alice", now_ms=now())
    replica.resume()
    await asyncio.to_thread(follow, replica, primary)

    assert await store.of_user("alice", now_ms=now()) == []


@pytest.mark.gen_test
async def test_no_session_without_a_confirmed_index_entry(
    redis_cluster: Backend, open_redis: OpenRedis
) -> None:
    """In a cluster a failover may lose the entry alone, which "sign out the others" needs."""
    store, record = open_redis(f"{redis_cluster.url}?wait=1", timeout_s=2.0), new_record(user="alice")

    with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
        await store.create(record)

    assert await store.find(record.handle, now_ms=now()) is None


@pytest.mark.gen_test
async def test_without_replicas_each_kind_of_server_says_so(
    each_redis: Backend, open_redis: OpenRedis
) -> None:
    """Alone or in a cluster: nothing is acknowledged that nobody else has."""
    store = open_redis(f"{each_redis.url}?wait=1", timeout_s=4.0)

    answers = await asyncio.gather(*(store.create(new_record()) for _ in range(3)), return_exceptions=True)

    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert all("0 of 1 replicas" in str(answer) for answer in answers)


@pytest.mark.gen_test
@pytest.mark.parametrize("hang", [False, True], ids=["closed", "silent"])
async def test_lost_reply_to_wait_is_an_outage(redis8: Backend, open_redis: OpenRedis, hang: bool) -> None:
    """The reply of the write came, that of WAIT did not: it is unconfirmed, and is not sent again."""
    async with DroppingProxy(redis8.port, protocol="redis") as proxy:
        store = open_redis(f"redis://127.0.0.1:{proxy.port}/0?wait=1", timeout_s=0.5)
        proxy.drop_replies(lambda request: b"WAIT" in request, times=2, hang=hang)

        with pytest.raises(StoreUnavailable):
            await store.create(new_record())

        assert (proxy.count(b"EVALSHA"), proxy.count(b"WAIT")) in [(1, 1), (1, 2)]
        await store.aclose()
        await asyncio.sleep(0.05)


@pytest.mark.gen_test
async def test_account_that_may_not_wait_is_refused(redis8: Backend, open_redis: OpenRedis) -> None:
    """The missing right is StoreRefused, not a success."""
    with redis_client(redis8.port) as admin:
        admin.execute_command("ACL", "SETUSER", "hasty", "on", ">pw", "~*", "&*", "+@all", "-wait")
    store = open_redis(f"redis://hasty:pw@127.0.0.1:{redis8.port}/0?wait=1")

    with pytest.raises(StoreRefused):
        await store.create(new_record())


@pytest.mark.gen_test
async def test_call_that_wrote_nothing_is_not_told_as_a_write(
    pair: tuple[Server, Server], open_redis: OpenRedis
) -> None:
    """What is said without a confirmation holds also for a session that exists or has ended already."""
    primary, replica = pair
    store = open_redis(f"{primary.url}?wait=1", timeout_s=1.0)
    record, ended = new_record(), new_record()
    await store.create(record)
    await store.create(ended)
    replica.pause()
    with pytest.raises(StoreUnavailable):
        await store.destroy(ended.handle, now_ms=NOW)

    told = []
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.create(record),
        lambda: sign_in(store, ended, "alice"),
        lambda: store.destroy(ended.handle, now_ms=NOW),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable) as caught:
            await call()
        told.append(problem_of(caught.value).what)
    replica.resume()

    assert {re.sub(r"\d+ ms", "N ms", each) for each in told} == {
        "the primary has carried out the call, but 0 of 1 replicas have confirmed its state in N ms"
    }

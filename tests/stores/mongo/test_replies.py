"""What `MongoStore` sends, and what it makes of lost replies and of cancelled calls."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pymongo.errors import AutoReconnect

from stormcellar.stores import (
    Delta,
    Outcome,
    StoreUnavailable,
)
from stormcellar.stores.conformance.cases import (
    HOUR,
    NOTHING,
    NOW,
    created,
    handles,
    loaded,
    new_record,
    new_user,
    new_verifier,
    rotated,
    scanned,
)
from stormcellar.stores.conformance.faults import Network
from stormcellar.stores.errors import TIME_OUT, Problem, problem_of
from stormcellar.stores.mongo.calls import Calls
from stormcellar.stores.mongo.client import diagnosing
from tests.stores.mongo.samples import (
    MUTATIONS,
    READS,
    command_in,
    is_command,
    sent,
    store_at,
    through_proxy,
)
from tests.support.backends import Backend


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.gen_test
async def test_mutation_with_a_lost_reply_was_sent_once(mongo: Backend, name: str) -> None:
    """On a standalone server the caller hears StoreUnavailable, and the write happened exactly once."""
    command, call = MUTATIONS[name]
    async with through_proxy(mongo) as (store, proxy):
        record = await created(store, user=new_user(), data={"n": b"0"})
        before = len(sent(proxy, command))
        proxy.drop_replies(is_command(command))

        with pytest.raises(StoreUnavailable) as unavailable:
            await call(store, record)

        assert isinstance(unavailable.value.__cause__, AutoReconnect)
        assert len(sent(proxy, command)) == before + 1
        found = (await scanned(store)).get(record.handle)
        assert {
            "create": len(await store.of_user(str(record.user), now_ms=NOW)) == 2,
            "apply": found is not None and found.data == {"n": b"1"},
            "rotate": found is not None and found.verifier != record.verifier,
            "destroy": found is None,
        }[name]


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.gen_test
async def test_replica_set_applies_a_write_sent_again_once(mongo_rs: Backend, name: str) -> None:
    """The driver sends a write whose reply was lost again, under one number, and the first answer counts."""
    command, call = MUTATIONS[name]
    async with through_proxy(mongo_rs) as (store, proxy):
        record = await created(store, user=new_user(), data={"n": b"0"})
        before = len(sent(proxy, command))
        proxy.drop_replies(is_command(command))

        answer = await call(store, record)

        # Applied twice, each of these would be DuplicateSession, CONFLICT, GONE and False.
        expected = {"create": None, "apply": Outcome.APPLIED, "rotate": Outcome.APPLIED, "destroy": True}
        assert answer == expected[name]
        again = sent(proxy, command)[before:]
        assert len(again) == 2
        assert len({(command["lsid"]["id"], command["txnNumber"]) for command in again}) == 1


@pytest.mark.parametrize("name", READS)
@pytest.mark.gen_test
async def test_read_with_a_lost_reply_is_sent_again(mongo: Backend, name: str) -> None:
    """A read recovers from one lost reply by itself."""
    async with through_proxy(mongo) as (store, proxy):
        record = await created(store, user=new_user())
        expected = await READS[name](store, record)
        before = len(sent(proxy, b"find"))
        proxy.drop_replies(is_command(b"find"))

        answer = await READS[name](store, record)

        assert answer == expected
        assert len(sent(proxy, b"find")) == before + 2


@pytest.mark.gen_test
async def test_read_is_sent_again_only_once(mongo: Backend) -> None:
    """A second lost reply is told."""
    async with through_proxy(mongo) as (store, proxy):
        record = await created(store)
        proxy.drop_replies(is_command(b"find"), times=2)

        with pytest.raises(StoreUnavailable):
            await store.load(record.credential, now_ms=NOW)
        assert len(sent(proxy, b"find")) == 2


@pytest.mark.gen_test
async def test_each_operation_is_one_round_trip(mongo_rs: Backend) -> None:
    """Load, create, apply, rotate and destroy send one command each, once the indexes are there."""
    async with through_proxy(mongo_rs) as (store, proxy):
        await store.ping()
        record, verifier = new_record(), new_verifier()
        proxy.requests.clear()

        await store.create(record)
        await store.load(record.credential, now_ms=NOW)
        put = Delta(put={"a": b"2"}, expect={"a": b"1"})
        await store.apply(record.credential, put, now_ms=NOW, expires_ms=NOW + HOUR)
        await rotated(store, record.credential, verifier, keep=frozenset("a"))
        await store.apply(record.credential, NOTHING, now_ms=NOW, expires_ms=None)
        await store.destroy(record.handle, now_ms=NOW)

        names = [next(iter(command_in(request))) for request in proxy.requests]
        assert [name for name in names if name != "hello"] == [
            *("insert", "find", "update", "update", "update", "update")
        ]


@pytest.mark.gen_test
async def test_writes_ask_for_a_majority_and_reads_for_the_primary(mongo_rs: Backend) -> None:
    """Whatever the URL says, a write counts only when a majority has it, and none is an upsert."""  # G7, G8
    async with through_proxy(mongo_rs, "&w=1") as (store, proxy):
        record = await created(store)
        await rotated(store, record.credential, new_verifier())
        await store.destroy(record.handle, now_ms=NOW)

        writes = [command for name in (b"insert", b"update", b"delete") for command in sent(proxy, name)]
        assert [command["writeConcern"] for command in writes] == [{"w": "majority"}] * 3
        assert all("txnNumber" in command for command in writes)
        # So that the server, too, gives up a command that nobody waits for.
        assert all(0 < command["maxTimeMS"] < 5000 for command in writes)
        assert not any(update.get("upsert") for command in writes for update in command.get("updates", []))
    async with store_at(f"{mongo_rs.url}&readPreference=secondary") as store:
        # There is no secondary, so this would wait for one in vain.
        record = await created(store)
        assert await loaded(store, record.credential) == record


@pytest.mark.gen_test
async def test_indexes_are_tried_again_after_a_fault(mongo: Backend) -> None:
    """A first create that could not make the indexes writes nothing; the next one makes them, once."""
    async with through_proxy(mongo) as (store, proxy):
        proxy.drop_replies(is_command(b"createIndexes"))

        with pytest.raises(StoreUnavailable):
            await created(store)
        assert await scanned(store) == {}
        records = await asyncio.gather(*(created(store) for _ in range(20)))
        assert sorted(await scanned(store)) == handles(records)
        assert len(sent(proxy, b"createIndexes")) == 2


# PyMongo leaves a socket whose connecting was cancelled to the garbage collector, which closes it at once.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.gen_test(timeout=60)
async def test_cancelled_calls_leave_no_reply_and_hold_no_connection(mongo: Backend) -> None:
    """Calls cut off at every step, on a pool of two, never pass a reply on, and the pool stays whole."""
    async with store_at(f"{mongo.url}?maxPoolSize=2") as store:
        mine, other = await created(store, data={"n": b"0"}), await created(store, data={"n": b"other"})

        for steps in range(60):
            value = b"%d" % steps
            put = Delta(put={"a": value, "b": value})
            tasks = [
                asyncio.ensure_future(store.load(mine.credential, now_ms=NOW)),
                asyncio.ensure_future(store.apply(mine.credential, put, now_ms=NOW, expires_ms=None)),
            ]
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert await loaded(store, other.credential) == other
            now = (await loaded(store, mine.credential)).data
            assert now.get("a") == now.get("b")

        found = await asyncio.gather(*(loaded(store, other.credential) for _ in range(40)))
        assert found == [other] * 40


@pytest.mark.gen_test
async def test_reply_that_comes_after_a_cancellation_reaches_nobody(mongo: Backend) -> None:
    """A call cancelled in its wait for a reply keeps its connection until then; the next has its own."""
    async with Network(mongo.port) as proxy:
        url = f"mongodb://127.0.0.1:{proxy.port}/stormcellar?directConnection=true&maxPoolSize=1"
        async with store_at(url, timeout_s=10.0) as store:
            mine, other = await created(store), await created(store)
            proxy.stall()
            task = asyncio.ensure_future(store.load(mine.credential, now_ms=NOW))
            while not proxy.held:
                await asyncio.wait([task], timeout=0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            next_one = asyncio.ensure_future(loaded(store, other.credential))
            proxy.resume()

            assert task.cancelled()
            assert await next_one == other


REFUSED = ConnectionRefusedError(111, "Connection refused")
FULL = Problem("MongoDB has no space left", "make room on its disk")


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (FULL, FULL.what),
        (None, "nothing accepts connections at the address of the store"),
        (TIME_OUT.problem, "nothing accepts connections at the address of the store"),
    ],
)
@pytest.mark.gen_test
async def test_a_member_that_is_down_does_not_replace_the_reason(
    known: Problem | None, expected: str
) -> None:
    """The error of another member is the reason only of a call without a reply."""
    members = {"down": SimpleNamespace(error=REFUSED), "up": SimpleNamespace(error=None)}
    topology = SimpleNamespace(
        server_descriptions=lambda: members, topology_type_name="ReplicaSetWithPrimary"
    )
    client = cast(Any, SimpleNamespace(topology_description=topology))

    with pytest.raises(StoreUnavailable) as caught:
        async with diagnosing(client, Calls(1.0)):
            raise StoreUnavailable("ping", known)

    assert problem_of(caught.value).what == expected

"""Slots that move from one node of a cluster to another: no call fails, none is lost or done twice."""

from __future__ import annotations

import asyncio

import pytest

from stormcellar.stores import Delta, Outcome, Record, StoreRefused
from stormcellar.stores.conformance.cases import ENDED, NOW, new_record
from stormcellar.stores.redis import RedisStore
from tests.conftest import StartServer
from tests.stores.redis.samples import OpenRedis, now, sign_in
from tests.support.backends import Server
from tests.support.cluster import begin_move, client_of, end_move, join, move_keys, slot_of


@pytest.fixture
def nodes(start_server: StartServer) -> list[Server]:
    """The two nodes of a cluster; the second one has no slot."""
    servers = [start_server("redis_cluster", extra=["--cluster-node-timeout", "1000"]) for _ in range(2)]
    join(servers)
    return servers


def slots_of(store: RedisStore, records: list[Record]) -> list[int]:
    """Return the slots that *records* are in."""
    return sorted({slot_of(f"{store._prefix}:s:{record.handle}") for record in records})


async def hold_connections(store: RedisStore, record: Record, count: int) -> None:
    """Leave the store with *count* free connections."""
    loads = (store.load(record.credential, now_ms=now()) for _ in range(64 * count))
    await asyncio.gather(*loads)


@pytest.mark.gen_test
@pytest.mark.parametrize("is_known", [False, True], ids=["new", "known"])
@pytest.mark.parametrize("held", [1, 2])
async def test_session_that_moved_ahead_of_its_slot_is_served(
    nodes: list[Server], open_redis: OpenRedis, held: int, is_known: bool
) -> None:
    """Every call reaches it, on a node with slots or without, however many connections are free."""
    if is_known:
        end_move(0, *nodes)
    store = open_redis(f"redis+cluster://127.0.0.1:{nodes[0].port}")
    record = new_record(user="alice")
    await store.create(record)
    [slot] = slots_of(store, [record])
    if is_known:
        await hold_connections(store, new_record(), held)
    begin_move(slot, *nodes)
    move_keys(slot, *nodes)
    await hold_connections(store, record, held)

    loaded = await store.load(record.credential, now_ms=now())
    counted = Delta(put={"n": b"1"}, expect={"n": None})
    applied = await store.apply(record.credential, counted, now_ms=now(), expires_ms=None)
    again = await store.apply(record.credential, counted, now_ms=now(), expires_ms=None)
    listed = await store.of_user("alice", now_ms=NOW)
    destroyed = await store.destroy(record.handle, now_ms=NOW)

    assert (loaded, applied, again) == (record, Outcome.APPLIED, Outcome.CONFLICT)
    assert ([found.handle for found in listed], destroyed) == ([record.handle], True)
    assert await store.load(record.credential, now_ms=now()) == ENDED
    end_move(slot, *nodes)
    assert await store.load(record.credential, now_ms=now()) == ENDED


@pytest.mark.gen_test
async def test_batch_with_a_moved_session_is_answered_whole(
    nodes: list[Server], open_redis: OpenRedis
) -> None:
    """Of fifty sessions in one batch some have moved, and some slots have a new owner: all are found."""
    store = open_redis(f"redis+cluster://127.0.0.1:{nodes[0].port}")
    records = [new_record() for _ in range(50)]
    await asyncio.gather(*(store.create(record) for record in records))
    for number, slot in enumerate(slots_of(store, records[:30])):
        begin_move(slot, *nodes)
        if number % 3:
            move_keys(slot, *nodes)
        if number % 3 == 2:
            end_move(slot, *nodes)

    loaded = await asyncio.gather(*(store.load(each.credential, now_ms=now()) for each in records))
    rotated = await asyncio.gather(*(sign_in(store, each, "alice") for each in records))

    assert loaded == records
    assert rotated == [Outcome.APPLIED] * 50
    assert len(await store.of_user("alice", now_ms=NOW)) == 50


@pytest.mark.gen_test(timeout=100)
async def test_slots_move_under_load(nodes: list[Server], open_redis: OpenRedis) -> None:
    """While 22 busy slots move to a node that had none, no call fails, and each write is there once."""
    store = open_redis(f"redis+cluster://127.0.0.1:{nodes[0].port}", timeout_s=10.0)
    records = [new_record() for _ in range(22)]
    await asyncio.gather(*(store.create(record) for record in records))
    written = dict.fromkeys((record.handle for record in records), 0)
    is_moving = True

    async def write(record: Record) -> None:
        while is_moving:
            number = written[record.handle]
            before = None if number == 0 else b"%d" % number
            delta = Delta(put={"n": b"%d" % (number + 1)}, expect={"n": before})
            outcome = await store.apply(record.credential, delta, now_ms=now(), expires_ms=None)
            assert outcome is Outcome.APPLIED
            written[record.handle] += 1
            found = await store.load(record.credential, now_ms=now())
            assert isinstance(found, Record) and found.data["n"] == delta.put["n"]

    def move() -> None:
        for slot in slots_of(store, records):
            for step in (begin_move, move_keys, end_move):
                step(slot, *nodes)

    writers = [asyncio.ensure_future(write(record)) for record in records]
    await asyncio.to_thread(move)
    is_moving = False
    await asyncio.gather(*writers)

    assert min(written.values()) > 0
    with client_of(nodes[1]) as admin:
        assert admin.dbsize() == 22


@pytest.mark.gen_test
async def test_account_that_may_not_ask_is_told_so(nodes: list[Server], open_redis: OpenRedis) -> None:
    """Without the right to ASKING a moved session is StoreRefused, and the connection stays in step."""
    for server in nodes:
        with client_of(server) as admin:
            admin.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-asking")
    store = open_redis(f"redis+cluster://app:pw@127.0.0.1:{nodes[0].port}")
    record, other = new_record(), new_record()
    await store.create(record)
    await store.create(other)
    [slot] = slots_of(store, [record])
    begin_move(slot, *nodes)
    move_keys(slot, *nodes)

    for _ in range(2):
        with pytest.raises(StoreRefused):
            await store.load(record.credential, now_ms=now())
    assert await store.load(other.credential, now_ms=now()) == other

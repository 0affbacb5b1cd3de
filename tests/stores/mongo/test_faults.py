"""`MongoStore` when its server freezes, dies, refuses or fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from contextlib import aclosing, suppress
from typing import Any

import pymongo
import pytest
from pymongo.errors import PyMongoError

from stormcellar.stores import (
    Absent,
    Record,
    StoreError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    Why,
)
from stormcellar.stores.conformance.cases import (
    HOUR,
    NOTHING,
    NOW,
    created,
    loaded,
    new_record,
    new_user,
    new_verifier,
    rotated,
)
from stormcellar.stores.conformance.faults import Network
from stormcellar.stores.mongo import MongoStore
from tests.conftest import StartServer
from tests.stores.mongo.samples import (
    MUTATIONS,
    READS,
    begun,
    failing,
    store_at,
)
from tests.support.backends import Backend

BUDGET_S = 0.5


# A busy machine may be late by this much, and is then still far from the driver's own 20 or 30 seconds.
LATE_S = 2.0


@pytest.mark.gen_test(timeout=60)
async def test_frozen_server_holds_no_call_beyond_the_budget(start_server: StartServer) -> None:
    """Each call on a frozen server is StoreUnavailable in time; thawed, it serves again."""  # G13
    server = start_server("mongo")
    async with store_at(server.url, timeout_s=BUDGET_S) as store:
        record = await created(store, user=new_user(), data={"n": b"0"})
        server.pause()
        calls = [*(call for _, call in MUTATIONS.values()), *READS.values(), lambda *_: store.ping()]
        try:
            took = [await seconds_until_unavailable(call(store, record)) for call in calls]
            crowd = await asyncio.gather(
                *(seconds_until_unavailable(READS["load"](store, record)) for _ in range(160))
            )
        finally:
            server.resume()
        await answers(store)

        assert max(*took, *crowd) < BUDGET_S + LATE_S


@pytest.mark.gen_test(timeout=60)
async def test_first_calls_do_not_queue_up_on_a_frozen_server(start_server: StartServer) -> None:
    """Creates that wait for the same making of indexes each give up in their own time."""
    server = start_server("mongo")
    async with store_at(server.url, timeout_s=BUDGET_S) as store:
        server.pause()
        try:
            crowd = await asyncio.gather(
                *(seconds_until_unavailable(store.create(new_record())) for _ in range(20))
            )
        finally:
            server.resume()

    assert max(crowd) < BUDGET_S + LATE_S


@pytest.mark.gen_test(timeout=60)
async def test_closing_on_a_frozen_server_ends(start_server: StartServer) -> None:
    """A store that was in use closes within its budget though the server no longer answers."""
    server = start_server("mongo_rs")
    async with store_at(server.url, timeout_s=BUDGET_S) as store:
        await created(store)
        server.pause()
        try:
            begun = time.monotonic()
            await store.aclose()
            took = time.monotonic() - begun
        finally:
            server.resume()

    assert took < BUDGET_S + LATE_S


@pytest.mark.gen_test(timeout=60)
async def test_store_outlives_its_server(start_server: StartServer) -> None:
    """After a crash and a restart the same store serves again and its listeners hear again."""
    server = start_server("mongo_rs")
    async with store_at(server.url) as store, aclosing(store.gone()) as listener:
        record = await created(store)
        await begun(listener)
        waiting = asyncio.ensure_future(anext(listener))
        server.kill()

        with pytest.raises(StoreUnavailable):
            await store.load(record.credential, now_ms=NOW)
        server.start()
        await answers(store)
        assert await loaded(store, record.credential) == record
        await store.destroy(record.handle, now_ms=NOW)
        told = await asyncio.wait_for(waiting, 30)
        while told != record.handle:
            told = await asyncio.wait_for(anext(listener), 30)


@pytest.mark.gen_test(timeout=60)
async def test_acknowledged_end_survives_a_crash(start_server: StartServer, prefix: str) -> None:
    """A majority write is in the journal, also on a standalone server; with w=1 the end is lost."""
    server = start_server("mongo")
    async with store_at(server.url, prefix=prefix) as store:
        kept, ended = await created(store), await created(store)
        await store.destroy(ended.handle, now_ms=NOW)
        server.kill()
    server.start()

    async with store_at(server.url, prefix=prefix) as store:
        assert await loaded(store, kept.credential) == kept
        assert await store.load(ended.credential, now_ms=NOW) == Absent(Why.ENDED, NOW)


@pytest.mark.gen_test
async def test_writes_that_wait_for_a_connection_close_no_other(
    mongo: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """One lost connection closes the others once: on a standalone server a waiting write is not repeated."""
    network = Network(mongo.port)
    async with network, store_at(f"mongodb://127.0.0.1:{network.port}/stormcellar") as store:
        await created(store)
        caplog.set_level(logging.DEBUG, "pymongo.connection")
        network.stall()
        writes = asyncio.gather(*(created(store) for _ in range(8)), return_exceptions=True)
        # One write on the open connection, and the greetings of two new ones; the other writes wait.
        while network.held < 3:  # noqa: ASYNC110  the driver has no event for it
            await asyncio.sleep(0.001)
        network.cut()
        network.resume()
        failures = await writes
        await answers(store)

    assert {type(each) for each in failures} <= {StoreUnavailable, Record}
    assert len([line for line in caplog.messages if "Connection pool cleared" in line]) == 1


@pytest.mark.gen_test
async def test_closed_store_answers_unavailable(mongo: Backend) -> None:
    """A call on a closed store is a fault, not a crash."""
    async with store_at(mongo.url) as store:
        record = await created(store)
        await store.aclose()

        with pytest.raises(StoreUnavailable):
            await store.load(record.credential, now_ms=NOW)


@pytest.mark.gen_test(timeout=60)
async def test_wrong_credentials_or_rights_are_refused(start_server: StartServer) -> None:
    """A wrong password, none, and a user who may only read raise StoreRefused; the right ones serve."""  # G9
    server = start_server("mongo", extra=["--auth"])
    with pymongo.MongoClient("127.0.0.1", server.port) as admin:
        admin.admin.command("createUser", "root", pwd="root-pw", roles=["root"])
    with pymongo.MongoClient("127.0.0.1", server.port, username="root", password="root-pw") as admin:
        admin.stormcellar.command("createUser", "app", pwd="p@ss/word", roles=["readWrite"])
        admin.stormcellar.command("createUser", "reader", pwd="reader-pw", roles=["read"])
    place = f"127.0.0.1:{server.port}/stormcellar"

    for login in ("app:wrong@", "nobody:x@", "reader:reader-pw@", ""):
        async with store_at(f"mongodb://{login}{place}") as store:
            with pytest.raises(StoreRefused) as refused:
                await store.ping()
            assert "pw" not in str(refused.value)
            with pytest.raises(StoreRefused) as refused:
                await created(store)
            assert isinstance(refused.value.__cause__, PyMongoError)
    async with store_at(f"mongodb://app:p%40ss%2Fword@{place}") as store:
        await store.ping()
        record = await created(store)
        assert await loaded(store, record.credential) == record


@pytest.mark.parametrize("left", ["read", None])
@pytest.mark.gen_test(timeout=60)
async def test_rights_that_are_taken_away_are_refused(start_server: StartServer, left: str | None) -> None:
    """A store that served says so at its next ping, and serves again when the rights are back."""
    server = start_server("mongo", extra=["--auth"])
    with pymongo.MongoClient("127.0.0.1", server.port) as admin:
        admin.admin.command("createUser", "root", pwd="root-pw", roles=["root"])
    with pymongo.MongoClient("127.0.0.1", server.port, username="root", password="root-pw") as admin:
        admin.stormcellar.command("createUser", "app", pwd="app-pw", roles=["readWrite"])
        async with store_at(f"mongodb://app:app-pw@127.0.0.1:{server.port}/stormcellar") as store:
            await store.ping()
            admin.stormcellar.command("updateUser", "app", roles=[left] if left else [])
            with pytest.raises(StoreRefused):
                await store.ping()
            admin.stormcellar.command("updateUser", "app", roles=["readWrite"])
            await store.ping()


FAULTS: list[tuple[dict[str, Any], type[StoreError]]] = [
    ({"errorCode": 14031}, StoreFull),
    ({"errorCode": 13}, StoreRefused),
    ({"errorCode": 18}, StoreRefused),
    ({"errorCode": 8000}, StoreRefused),
    ({"errorCode": 50}, StoreUnavailable),
    ({"errorCode": 112}, StoreUnavailable),
    ({"errorCode": 10107}, StoreUnavailable),
    ({"errorCode": 91}, StoreUnavailable),
    ({"closeConnection": True}, StoreUnavailable),
    ({"writeConcernError": {"code": 64, "errmsg": "waiting timed out"}}, StoreUnavailable),
]


@pytest.mark.gen_test(timeout=60)
async def test_fault_of_the_server_is_one_of_ours(start_server: StartServer) -> None:
    """Each kind of failure that the server reports has its exception, with the driver's as its cause."""
    server = start_server("mongo_rs", extra=["--setParameter", "enableTestCommands=1"])
    async with store_at(server.url, timeout_s=1.5) as store:
        record = await created(store)
        for how, expected in FAULTS:
            with failing(server, "insert", **how), pytest.raises(StoreError) as raised:
                await created(store)

            assert (type(raised.value), how) == (expected, how)
            assert isinstance(raised.value.__cause__, PyMongoError | TimeoutError)
        assert await loaded(store, record.credential) == record


@pytest.mark.gen_test(timeout=60)
async def test_full_server_still_ends_sessions(start_server: StartServer) -> None:
    """Where there is no space left to write, sign-out works and says so."""
    server = start_server("mongo", extra=["--setParameter", "enableTestCommands=1"])
    async with store_at(server.url) as store:
        record = await created(store)
        with failing(server, "update", errorCode=14031):
            with pytest.raises(StoreFull):
                await store.apply(record.credential, NOTHING, now_ms=NOW, expires_ms=NOW + HOUR)
            with pytest.raises(StoreFull):
                await rotated(store, record.credential, new_verifier())

            assert await loaded(store, record.credential) == record
            assert await store.destroy(record.handle, now_ms=NOW) is True


async def seconds_until_unavailable(call: Awaitable[object]) -> float:
    """Return how long *call* took to raise StoreUnavailable, which it must."""
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await call
    return time.monotonic() - begun


async def answers(store: MongoStore) -> None:
    """Return once *store* answers again, or fail after a while."""
    async with asyncio.timeout(30):
        while True:
            with suppress(StoreUnavailable):
                return await store.ping()

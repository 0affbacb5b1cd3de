"""The contract on a file, and the facts of what the file holds."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import pytest
from tornado.ioloop import IOLoop

from stormcellar.stores import TOMBSTONE_MS, Credential, Delta, Outcome
from stormcellar.stores.conformance import CountersContract, StoreContract
from stormcellar.stores.conformance.cases import (
    ENDED,
    HOUR,
    MINUTE,
    NOW,
    UNKNOWN,
    created,
    handles,
    loaded,
    new_record,
    new_user,
    new_verifier,
    rotated,
    scanned,
)
from stormcellar.stores.counters import Rule
from stormcellar.stores.sqlite import SQLiteStore
from stormcellar.stores.sqlite.counters import SQLiteCounters
from stormcellar.stores.sqlite.sessions import REMOVED_PER_CALL
from stormcellar.stores.sqlite.worker import Worker
from tests.stores.sqlite.conftest import OpenStore

RULE = Rule(limit=5, first_wait_ms=0, longest_wait_ms=0, keep_ms=HOUR)


class InTurn:
    """Gives each call to the next of several workers, as if each call came from another process."""

    def __init__(self, *workers: Worker) -> None:
        self._workers = workers
        self._next = cycle(workers)

    async def run(self, operation: str, call: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run *call* by the next worker."""
        return await next(self._next).run(operation, call)

    async def aclose(self) -> None:
        """Close all of them."""
        for worker in self._workers:
            await worker.aclose()


@pytest.fixture
def divided(open_sqlite: OpenStore) -> SQLiteStore:
    """A store of which each call goes over another connection than the one before."""
    store, other = open_sqlite(), open_sqlite()
    store._writer = cast(Worker, InTurn(store._writer, other._writer))
    store._reader = cast(Worker, InTurn(store._reader, other._reader))
    store._counters = SQLiteCounters(store._writer, store._reader, "stormcellar")
    return store


class TestContract(StoreContract):
    """The whole contract, each instance by its URL."""

    @pytest.fixture
    def store_url(self, path: Path) -> str:
        """The file of this test."""
        return f"sqlite:{path}"


class TestCounters(CountersContract):
    """The contract of the counters."""

    @pytest.fixture
    def store_url(self, path: Path) -> str:
        """The file of this test."""
        return f"sqlite:{path}"


class TestSeveralConnections(StoreContract):
    """The whole contract, with two connections in turn, as of two processes."""

    @pytest.fixture
    def store(self, divided: SQLiteStore) -> SQLiteStore:
        """The store of this test."""
        return divided


class TestCountersOnSeveralConnections(CountersContract):
    """The contract of the counters, with two connections in turn."""

    @pytest.fixture
    def store(self, divided: SQLiteStore) -> SQLiteStore:
        """The store of this test."""
        return divided


@pytest.fixture
def admin(path: Path, store: SQLiteStore, io_loop: IOLoop) -> Iterator[sqlite3.Connection]:
    """A connection of our own to the file of the store."""
    io_loop.run_sync(store.ping)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def count(admin: sqlite3.Connection, table: str) -> int:
    """Return the number of rows of *table*."""
    number: int = admin.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return number


@pytest.mark.gen_test
async def test_everything_survives_a_restart(open_sqlite: OpenStore) -> None:
    """A store that is opened later has the sessions, the tombstones and the tallies."""
    first, user = open_sqlite(), new_user()
    staying, ended = await created(first, user=user), await created(first)
    await first.destroy(ended.handle, now_ms=NOW)
    await first.counters().take("key", RULE, now_ms=NOW)
    await first.aclose()

    second = open_sqlite()

    assert await loaded(second, staying.credential) == staying
    assert await second.load(ended.credential, now_ms=NOW) == ENDED
    assert handles(await second.of_user(user, now_ms=NOW)) == [staying.handle]
    assert (await second.counters().peek("key", now_ms=NOW)).count == 1


@pytest.mark.gen_test
async def test_prefixes_are_separate(open_sqlite: OpenStore) -> None:
    """Two applications on one file share neither sessions, users nor tallies, even of the same names."""
    one, two, user = open_sqlite(prefix="one"), open_sqlite(prefix="two"), new_user()
    record = await created(one, user=user)
    await two.create(new_record(handle=record.handle, user=user, data={"b": b"2"}))
    await one.counters().take("key", RULE, now_ms=NOW)

    await two.destroy(record.handle, now_ms=NOW)

    assert await loaded(one, record.credential) == record
    assert await two.of_user(user, now_ms=NOW) == []
    assert (await scanned(one), await scanned(two)) == ({record.handle: record}, {})
    assert (await two.counters().peek("key", now_ms=NOW)).count == 0


@pytest.mark.gen_test
async def test_old_rows_are_removed(store: SQLiteStore, admin: sqlite3.Connection) -> None:
    """Ten minutes after the end of records and tombstones, each create removes a few; none before."""  # B12
    for number in range(10):
        record = await created(store, expires_ms=NOW + MINUTE)
        if number % 2:
            await store.destroy(record.handle, now_ms=NOW + MINUTE)
    sizes = []

    for after_ms in (TOMBSTONE_MS - 1, TOMBSTONE_MS, TOMBSTONE_MS):
        await store.create(new_record(seen_ms=NOW + MINUTE + after_ms))
        sizes.append(count(admin, "sessions"))

    assert sizes == [11, 12 - REMOVED_PER_CALL, 3]


@pytest.mark.gen_test
async def test_old_tallies_and_announcements_are_removed(
    store: SQLiteStore, admin: sqlite3.Connection
) -> None:
    """A take removes tallies that have ended, and a destroy announcements that are ten minutes old."""
    first, last = await created(store), await created(store)
    await store.destroy(first.handle, now_ms=NOW)
    await store.counters().take("old", RULE, now_ms=NOW)

    await store.destroy(last.handle, now_ms=NOW + TOMBSTONE_MS)
    await store.counters().take("new", RULE, now_ms=NOW + HOUR)

    assert admin.execute("SELECT handle FROM ended").fetchall() == [(last.handle,)]
    assert admin.execute("SELECT key FROM tallies").fetchall() == [("new",)]


@pytest.mark.gen_test
async def test_tombstone_has_no_data(store: SQLiteStore, admin: sqlite3.Connection) -> None:
    """The row of a destroyed session has its time and its names, and nothing else."""
    record = await created(store, user=new_user(), data={"a": b"private"})

    await store.destroy(record.handle, now_ms=NOW)

    [row] = admin.execute("SELECT * FROM sessions").fetchall()
    assert row == ("stormcellar", record.handle, *[None] * 12, NOW)


@pytest.mark.gen_test
async def test_tombstone_ends_to_the_millisecond(store: SQLiteStore) -> None:
    """After ten minutes the session is unknown, whether or not the row is still there."""
    record = await created(store)
    await store.destroy(record.handle, now_ms=NOW)

    found = [await store.load(record.credential, now_ms=NOW + TOMBSTONE_MS - early) for early in (1, 0)]

    assert found == [ENDED, UNKNOWN]


@pytest.mark.gen_test
async def test_time_of_activity_alone_keeps_the_data(store: SQLiteStore) -> None:
    """A touch changes the times of the row and nothing else."""
    record = await created(store, user=new_user(), data={"a": b"1"})

    await store.apply(record.credential, Delta(), now_ms=NOW + MINUTE, expires_ms=NOW + 2 * HOUR)

    found = await loaded(store, record.credential)
    assert (found.data, found.user, found.created_ms) == (record.data, record.user, record.created_ms)
    assert (found.seen_ms, found.expires_ms) == (NOW + MINUTE, NOW + 2 * HOUR)


@pytest.mark.parametrize(
    "damage",
    [
        "verifier = NULL",
        "verifier = CAST(x'ff' AS TEXT)",
        "user = CAST(x'ff' AS TEXT)",
        "user = x'61'",
        "created_ms = 'soon'",
        "created_ms = -1",
        "seen_ms = 253402300800000",
        "client = 'text'",
        "data = x'c1'",
        "data = x'81a16101'",
        "data = NULL",
        "previous = x'61'",
        "grace_until_ms = 'x'",
        "ended_ms = 'x'",
        "ended_ms = -1",
    ],
)
@pytest.mark.gen_test
async def test_row_that_does_not_parse_is_no_session(
    store: SQLiteStore, admin: sqlite3.Connection, damage: str
) -> None:
    """It is unknown and changed by nobody, disturbs no other row, is no free handle, and can be destroyed."""
    user = new_user()
    record, other = await created(store, user=user), await created(store, user=user)
    admin.execute(f"UPDATE sessions SET {damage} WHERE handle = ?", (record.handle,))
    credential = record.credential

    assert await store.load(credential, now_ms=NOW) == UNKNOWN
    assert await store.find(record.handle, now_ms=NOW) is None
    assert await store.apply(credential, Delta(), now_ms=NOW, expires_ms=None) is Outcome.GONE
    assert await rotated(store, credential, new_verifier()) is Outcome.GONE
    assert set(await scanned(store)) == {other.handle}
    if "data" not in damage:
        assert handles(await store.of_user(user, now_ms=NOW)) == [other.handle]
        assert await store.states([credential], now_ms=NOW) == {credential: UNKNOWN}
    assert await store.destroy(record.handle, now_ms=NOW) is ("ended_ms" not in damage)


@pytest.mark.gen_test
async def test_tally_that_does_not_parse_is_none(store: SQLiteStore, admin: sqlite3.Connection) -> None:
    """A tally whose count is text starts anew."""
    await store.counters().take("key", RULE, now_ms=NOW)
    admin.execute("UPDATE tallies SET count = 'many'")

    assert (await store.counters().take("key", RULE, now_ms=NOW)).count == 1


@pytest.mark.gen_test
async def test_one_bad_call_fails_alone(store: SQLiteStore) -> None:
    """A handle that is not text, in a batch with other calls, is an error of its own call."""
    record = await created(store)
    bad: Any = Credential(cast(Any, "\ud800"), record.verifier)
    calls = [store.load(each, now_ms=NOW) for each in (record.credential, bad, record.credential)]

    first, error, last = await asyncio.gather(*calls, return_exceptions=True)

    assert (first, last) == (record, record)
    assert isinstance(error, UnicodeEncodeError)

"""A disk that is full, a file that is locked, removed or replaced, and callers that give up."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stormcellar.stores import Delta, Outcome, StoreFull, StoreRefused, StoreUnavailable
from stormcellar.stores.conformance.cases import ENDED, NOW, UNKNOWN, created, loaded, new_record
from stormcellar.stores.sqlite import SQLiteStore, worker
from stormcellar.stores.sqlite.file import DatabaseFile
from tests.stores.sqlite.conftest import OpenStore
from tests.support.running import ROOT
from tests.test_private_mounts import UNSHARE, can_mount

BIG = {"a": b"x" * 60_000}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock for writing, as another program."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield


class Gate:
    """A call that keeps the thread of a worker busy until it is opened."""

    def __init__(self) -> None:
        self.begun, self._may_end = threading.Event(), threading.Event()

    def __call__(self, db: sqlite3.Connection) -> None:
        """Wait; the argument is not used."""
        self.begun.set()
        self._may_end.wait(30)

    def open(self) -> None:
        """Let the call end."""
        self._may_end.set()


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file have 400 KB at most."""
    connect = DatabaseFile.connect

    def limited(self: DatabaseFile, *, wait_s: float) -> tuple[sqlite3.Connection, Any]:
        db, identity = connect(self, wait_s=wait_s)
        db.execute("PRAGMA max_page_count = 100")
        return db, identity

    monkeypatch.setattr(DatabaseFile, "connect", limited)


@pytest.mark.usefixtures("small_disk")
@pytest.mark.gen_test
async def test_full_store_refuses_writes_and_loses_nothing(store: SQLiteStore) -> None:
    """What needs room raises StoreFull; sessions are read, changed and destroyed, which makes room."""
    records, refused = [await created(store, data=BIG) for _ in range(6)], new_record(data=BIG)

    with pytest.raises(StoreFull) as raised:
        await store.create(refused)
    assert raised.value.problem is not None
    assert "make room" in raised.value.problem.advice
    assert await store.load(refused.credential, now_ms=NOW) == UNKNOWN
    assert [await loaded(store, each.credential) for each in records] == records
    smaller = Delta(put={"a": b"1"})
    first, last = records[0].credential, records[-1]
    assert await store.apply(first, smaller, now_ms=NOW, expires_ms=None) is Outcome.APPLIED
    assert await store.destroy(last.handle, now_ms=NOW) is True
    assert await store.load(last.credential, now_ms=NOW) == ENDED
    await store.create(refused)


@pytest.mark.usefixtures("small_disk")
@pytest.mark.gen_test
async def test_call_that_needs_too_much_fails_alone(store: SQLiteStore) -> None:
    """In one batch a record that does not fit is StoreFull; each other call is done once."""
    record = await created(store, data={"n": b"0"})
    large = new_record(data={"a": b"x" * 500_000})
    small = [new_record(data={}) for _ in range(3)]
    step = Delta(put={"n": b"1"}, expect={"n": b"0"})

    *answers, error = await asyncio.gather(
        store.apply(record.credential, step, now_ms=NOW, expires_ms=None),
        *(store.create(each) for each in small),
        store.create(large),
        return_exceptions=True,
    )

    assert answers == [Outcome.APPLIED, None, None, None]
    assert isinstance(error, StoreFull)
    assert [await loaded(store, each.credential) for each in small] == small
    assert await store.load(large.credential, now_ms=NOW) == UNKNOWN


@pytest.mark.gen_test
async def test_tombstone_is_left_out_if_there_is_no_room_for_it(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full store a sign-out removes the record, although nothing can be written in its place."""
    record = await created(store)

    def full(*_: object) -> bool:
        exc = sqlite3.OperationalError("database or disk is full")
        exc.sqlite_errorcode, exc.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
        raise exc

    monkeypatch.setattr("stormcellar.stores.sqlite.sessions.destroy", full)

    assert await store.destroy(record.handle, now_ms=NOW) is True
    assert await store.load(record.credential, now_ms=NOW) == UNKNOWN
    assert await store.destroy(record.handle, now_ms=NOW) is False


# On a disk of 2 MB: fills it with sessions, then makes room by what a file took.
FILL = """
import asyncio, pathlib, sys
from stormcellar.stores import StoreFull, StoreUnavailable, open_store
from stormcellar.stores.conformance.cases import NOW, new_record
directory = pathlib.Path(sys.argv[1])
ballast = directory / "ballast"
ballast.write_bytes(bytes(500_000))
store = open_store(f"sqlite:{directory}/sessions.db")
async def attempt(call):
    try:
        return await call
    except StoreUnavailable as exc:
        return type(exc).__name__, exc.problem.what
async def main():
    records = []
    while True:
        records.append(new_record(data={"a": b"x" * 20_000}))
        if answer := await attempt(store.create(records[-1])):
            break
    first = records[0]
    print(answer[0], await store.load(first.credential, now_ms=NOW) == first)
    print(*await attempt(store.destroy(first.handle, now_ms=NOW)))
    print(await store.load(first.credential, now_ms=NOW) == first)
    ballast.unlink()
    print(await store.destroy(first.handle, now_ms=NOW))
    print(all([await store.load(each.credential, now_ms=NOW) == each for each in records[1:-1]]))
    await store.aclose()
asyncio.run(main())
"""


@pytest.mark.skipif(not can_mount(), reason="this user may not mount a file system")
def test_disk_without_any_space(tmp_path: Path) -> None:
    """Sessions are read; even a sign-out is an outage, which ends as soon as there is space."""
    mount = f'mount -t tmpfs -o size=2m tmpfs "$0" && exec {sys.executable} -c "$1" "$0"'

    ended = subprocess.run(
        [*UNSHARE, "sh", "-c", mount, str(tmp_path), FILL], capture_output=True, text=True, cwd=ROOT
    )

    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "StoreFull True",
        "StoreUnavailable there is no space left for the SQLite file",
        "True",
        "True",
        "True",
    ]


@pytest.mark.gen_test
async def test_lock_of_another_program_stops_writers_alone(open_sqlite: OpenStore, path: Path) -> None:
    """A write raises StoreUnavailable before its time-out and says why; reads go on; then writes, too."""
    store = open_sqlite(timeout_s=1)
    record = await created(store)

    with locked(path):
        with pytest.raises(StoreUnavailable) as raised:
            await created(store)
        found = await store.load(record.credential, now_ms=NOW)

    assert raised.value.problem is not None
    assert "another program holds the lock" in raised.value.problem.what
    assert found == record
    await created(store)


@pytest.mark.gen_test
async def test_write_waits_for_a_short_lock(store: SQLiteStore, path: Path) -> None:
    """A writer that holds the lock for a moment delays a write, and nothing more."""
    await store.ping()
    with locked(path):
        write = asyncio.create_task(created(store))
        await asyncio.sleep(0.05)
        assert not write.done()

    record = await write
    assert await loaded(store, record.credential) == record


@pytest.mark.gen_test
async def test_disk_that_hangs_is_an_outage(open_sqlite: OpenStore) -> None:
    """Callers give up in time; what was not begun is not done later, and then the store works again."""
    store, gate = open_sqlite(timeout_s=1), Gate()
    hanging = asyncio.create_task(store._writer.run("hang", gate))
    await asyncio.to_thread(gate.begun.wait, 10)
    late = new_record()

    with pytest.raises(StoreUnavailable) as raised:
        await store.create(late)
    outcome = await asyncio.gather(hanging, return_exceptions=True)
    gate.open()
    record = await created(store)

    assert raised.value.problem is not None
    assert "does not answer in time" in raised.value.problem.what
    assert isinstance(outcome[0], StoreUnavailable)
    assert await store.load(late.credential, now_ms=NOW) == UNKNOWN
    assert await loaded(store, record.credential) == record


@pytest.mark.gen_test
async def test_calls_that_nobody_waits_for_are_dropped(
    open_sqlite: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk hangs, calls of callers that gave up do not fill the memory."""
    monkeypatch.setattr(worker, "MANY", 20)
    store, gate = open_sqlite(), Gate()
    hanging = asyncio.create_task(store._reader.run("hang", gate))
    await asyncio.to_thread(gate.begun.wait, 10)
    record = new_record()

    for _ in range(500):
        call = asyncio.create_task(store.load(record.credential, now_ms=NOW))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    waiting = len(store._reader._batches._pending)
    gate.open()
    await hanging

    assert waiting <= worker.MANY
    assert await store.load(record.credential, now_ms=NOW) == UNKNOWN


@pytest.mark.gen_test
async def test_damage_is_told(store: SQLiteStore, path: Path) -> None:
    """Pages that are overwritten while the server runs are a refusal, and no traceback."""
    for _ in range(20):
        await created(store, data=BIG)
    await store.aclose()

    def damage() -> None:
        content = bytearray(path.read_bytes())
        content[4096:] = b"\x07" * (len(content) - 4096)
        path.write_bytes(content)

    await asyncio.to_thread(damage)
    other: Any = SQLiteStore(path, prefix="stormcellar", timeout_s=2)

    with pytest.raises(StoreRefused) as raised:
        await other.load(new_record().credential, now_ms=NOW)
    await other.aclose()

    assert raised.value.problem is not None
    assert "damaged" in raised.value.problem.what


@pytest.mark.gen_test
async def test_closed_store_is_an_outage(store: SQLiteStore) -> None:
    """A call after `aclose` raises StoreUnavailable, and opens nothing."""
    record = await created(store)
    await store.aclose()

    with pytest.raises(StoreUnavailable, match="closed"):
        await store.load(record.credential, now_ms=NOW)


@pytest.mark.gen_test
async def test_close_finishes_what_was_begun(store: SQLiteStore, open_sqlite: OpenStore) -> None:
    """Calls made before `aclose` are answered, and their effect is stored."""
    await store.ping()
    records = [new_record() for _ in range(100)]
    writes = [asyncio.create_task(store.create(each)) for each in records]
    await asyncio.sleep(0)

    await store.aclose()

    assert await asyncio.gather(*writes) == [None] * 100
    other = open_sqlite()
    assert [await loaded(other, each.credential) for each in records] == records

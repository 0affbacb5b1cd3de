"""A file that is removed or replaced while it is in use, and the log of the old one."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from stormcellar.stores import StoreRefused
from stormcellar.stores.conformance.cases import NOW, UNKNOWN, created, loaded, new_record
from tests.stores.sqlite.conftest import OpenStore


def remove(path: Path, *, log: bool) -> None:
    """Remove the file, and with *log* what belongs to it."""
    path.unlink()
    if log:
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink()


@pytest.mark.gen_test
async def test_removed_file_is_created_again(open_sqlite: OpenStore, path: Path) -> None:
    """After the file and its log were removed all sessions are gone, for each process, and new ones begin."""
    stores = [open_sqlite(), open_sqlite()]
    record = await created(stores[0])
    await stores[1].ping()

    await asyncio.to_thread(remove, path, log=True)
    found = [await store.load(record.credential, now_ms=NOW) for store in stores]
    new = await created(stores[0])

    assert found == [UNKNOWN] * 2
    assert await loaded(stores[1], new.credential) == new


@pytest.mark.gen_test
async def test_log_of_a_removed_file_is_never_used_for_another(open_sqlite: OpenStore, path: Path) -> None:
    """With the old log beside it a new file would be damaged: refused, until somebody removes it."""
    store = open_sqlite()
    await created(store)
    await asyncio.to_thread(remove, path, log=False)

    for _ in range(2):
        for call in (store.ping(), store.create(new_record())):
            with pytest.raises(StoreRefused) as raised:
                await call
            assert raised.value.problem is not None
            assert "-wal and -shm" in raised.value.problem.advice
    assert not await asyncio.to_thread(path.exists)
    await store.aclose()
    with pytest.raises(StoreRefused):
        await open_sqlite().ping()


def back_up(path: Path, backup: Path) -> None:
    """Copy the database at *path* to *backup*, as docs/operations.md says."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM INTO ?", (str(backup),))
    backup.chmod(0o600)


@pytest.mark.gen_test
async def test_log_of_a_replaced_file_is_never_used_for_the_other(
    open_sqlite: OpenStore, path: Path, tmp_path: Path
) -> None:
    """While the old log is there, each call is refused, and the file stays as it was."""
    store, backup = open_sqlite(), tmp_path / "backup.db"
    kept = await created(store)
    await asyncio.to_thread(back_up, path, backup)
    await created(store, data={"a": b"x" * 60_000})
    content = await asyncio.to_thread(backup.read_bytes)
    await asyncio.to_thread(backup.replace, path)

    for number in range(6):
        if number == 3:
            for each in (store._writer, store._reader):
                await asyncio.wrap_future(each._thread.submit(each._close))
        with pytest.raises(StoreRefused):
            await store.load(kept.credential, now_ms=NOW)
        with pytest.raises(StoreRefused):
            await store.create(new_record())
    after = await asyncio.to_thread(path.read_bytes)
    for suffix in ("-wal", "-shm"):
        await asyncio.to_thread(path.with_name(path.name + suffix).unlink)

    assert after == content
    assert await loaded(store, kept.credential) == kept


@pytest.mark.gen_test
async def test_replaced_file_is_noticed(open_sqlite: OpenStore, path: Path, tmp_path: Path) -> None:
    """A backup that is moved into the place of the file, with the log removed, is used at once."""
    store = open_sqlite()
    kept = await created(store)
    backup = tmp_path / "backup.db"

    def restore() -> None:
        remove(path, log=True)
        backup.rename(path)

    await asyncio.to_thread(back_up, path, backup)
    later = await created(store)
    await asyncio.to_thread(restore)

    assert await loaded(store, kept.credential) == kept
    assert await store.load(later.credential, now_ms=NOW) == UNKNOWN
    new = await created(store)
    assert await loaded(open_sqlite(), new.credential) == new

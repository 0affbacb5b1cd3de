"""`gone` announces what other processes end, and says so when some may be missing."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from stormcellar.stores.conformance.cases import NOW, created, new_verifier, rotated
from stormcellar.stores.sqlite import ended_sessions
from tests.stores.sqlite.conftest import OpenStore

SOON_S = 10


@pytest.mark.gen_test
async def test_ends_in_another_process_are_announced(open_sqlite: OpenStore) -> None:
    """A destroy and a rotation by another store on the same file arrive, in order, each once."""
    one, other = open_sqlite(), open_sqlite()
    ended, turned = await created(one), await created(one)
    async with aclosing(one.gone()) as listener, asyncio.timeout(SOON_S):
        begun = await anext(listener)
        await other.destroy(ended.handle, now_ms=NOW)
        await rotated(other, turned.credential, new_verifier())

        heard = [await anext(listener), await anext(listener)]

    assert (begun, heard) == (None, [ended.handle, turned.handle])


@pytest.mark.gen_test
async def test_own_ends_do_not_wait_for_the_clock(
    open_sqlite: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process an end is announced at once, not when the table is read the next time."""
    monkeypatch.setattr(ended_sessions, "POLL_S", 3600)
    store = open_sqlite()
    record = await created(store)
    async with aclosing(store.gone()) as listener, asyncio.timeout(SOON_S):
        await anext(listener)
        waiting = asyncio.ensure_future(anext(listener))
        await asyncio.sleep(0.05)

        await store.destroy(record.handle, now_ms=NOW)

        assert await waiting == record.handle


@pytest.mark.gen_test
async def test_other_prefix_is_not_announced(open_sqlite: OpenStore) -> None:
    """An application hears nothing of another one on the same file."""
    one, other = open_sqlite(prefix="one"), open_sqlite(prefix="two")
    foreign, own = await created(other), await created(one)
    async with aclosing(one.gone()) as listener, asyncio.timeout(SOON_S):
        await anext(listener)
        await other.destroy(foreign.handle, now_ms=NOW)
        await one.destroy(own.handle, now_ms=NOW)

        assert await anext(listener) == own.handle


@pytest.mark.gen_test
async def test_listener_that_reads_late_is_told_that_some_are_missing(
    open_sqlite: OpenStore, path: Path
) -> None:
    """If rows were removed before they were read, None comes, and then what follows."""
    store = open_sqlite()
    records = [await created(store) for _ in range(3)]
    async with aclosing(store.gone()) as listener, asyncio.timeout(SOON_S):
        await anext(listener)
        for record in records[:2]:
            await store.destroy(record.handle, now_ms=NOW)
        with closing(sqlite3.connect(path)) as admin, admin:
            admin.execute("DELETE FROM ended WHERE handle = ?", (records[0].handle,))

        first = await anext(listener)
        await store.destroy(records[2].handle, now_ms=NOW)

        assert (first, await anext(listener)) == (None, records[2].handle)


@pytest.mark.gen_test
async def test_listener_survives_another_file(open_sqlite: OpenStore, path: Path) -> None:
    """If the file is removed, None comes as soon as the new one has an end of its own."""
    store = open_sqlite()
    for _ in range(3):
        await store.destroy((await created(store)).handle, now_ms=NOW)
    async with aclosing(store.gone()) as listener, asyncio.timeout(SOON_S):
        await anext(listener)

        def remove() -> None:
            for each in path.parent.glob(f"{path.name}*"):
                each.unlink()

        await asyncio.to_thread(remove)
        record = await created(store)
        await store.destroy(record.handle, now_ms=NOW)

        assert await anext(listener) is None

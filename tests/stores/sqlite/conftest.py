"""The file of each test, and stores on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from stormcellar.stores.records import StoreOptions
from stormcellar.stores.sqlite import SQLiteStore

OpenStore = Callable[..., SQLiteStore]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file of this test is; it does not exist yet."""
    return tmp_path / "sessions.db"


@pytest.fixture
def open_sqlite(path: Path, io_loop: IOLoop) -> Iterator[OpenStore]:
    """A function that opens a store on the file of this test. All are closed after the test."""
    stores: list[SQLiteStore] = []

    def open_one(**options: object) -> SQLiteStore:
        stores.append(SQLiteStore.from_url(f"sqlite:{path}", StoreOptions(**options)))  # type: ignore[arg-type]
        return stores[-1]

    yield open_one
    for store in stores:
        io_loop.run_sync(store.aclose)


@pytest.fixture
def store(open_sqlite: OpenStore) -> SQLiteStore:
    """A store on the file of this test."""
    return open_sqlite()

"""Watches that are closed after the test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from stormcellar.sessions.live.watch import Rechecks
from stormcellar.stores import Store
from stormcellar.stores.memory import MemoryStore
from tests.sessions.live.watching import NEVER, Watching
from tests.support.fakes import SteeredStore


@pytest.fixture
def watching(io_loop: IOLoop) -> Iterator[Any]:
    """A function that makes a `Watching`; each is closed after the test."""
    made: list[Watching] = []

    def make(
        store: Store | None = None, rechecks: Rechecks = NEVER, users: dict[str, int] | None = None
    ) -> Watching:
        made.append(
            Watching(store or SteeredStore(MemoryStore()), rechecks, {"ada": 0} if users is None else users)
        )
        return made[-1]

    yield make
    for each in made:
        io_loop.run_sync(each.watch.aclose)

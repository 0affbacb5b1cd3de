"""Fixtures of the tests of accounts: a store of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop

from stormcellar.stores import Store, open_store
from stormcellar.stores.conformance.cases import new_key


@pytest.fixture(params=["memory", "sqlite", "redis8", "redis6", "redis_cluster", "mongo", "mongo_rs"])
def store(request: pytest.FixtureRequest, io_loop: IOLoop) -> Iterator[Store]:
    """A store on each kind of server, in a file, and in memory."""
    url = "memory:" if request.param == "memory" else request.getfixturevalue(request.param).url
    opened = open_store(url, prefix=new_key(), timeout_s=10.0)
    yield opened
    io_loop.run_sync(opened.aclose)

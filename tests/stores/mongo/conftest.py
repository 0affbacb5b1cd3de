"""Each kind of MongoDB, a store on it, and what it holds seen behind the store's back."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pymongo
import pytest
from tornado.ioloop import IOLoop

from stormcellar.stores import StoreOptions
from stormcellar.stores.mongo import MongoStore
from stormcellar.stores.mongo.client import collection_name
from tests.stores.mongo.samples import Document, Stored
from tests.support.backends import Backend


@pytest.fixture(params=["mongo", "mongo_rs"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each kind of MongoDB in turn."""
    found: Backend = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def prefix() -> str:
    """A prefix that no other test uses."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def store(backend: Backend, prefix: str, io_loop: IOLoop) -> Iterator[MongoStore]:
    """A store under *prefix* on each kind of MongoDB."""
    opened = MongoStore.from_url(backend.url, StoreOptions(prefix, timeout_s=10.0))
    yield opened
    io_loop.run_sync(opened.aclose)


@pytest.fixture
def stored(backend: Backend, prefix: str) -> Iterator[Stored]:
    """The collection of *store*, seen behind the store's back."""
    client: pymongo.MongoClient[Document]
    with pymongo.MongoClient(backend.url, tz_aware=True) as client:
        yield client.stormcellar[collection_name(prefix)]

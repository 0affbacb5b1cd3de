"""Each kind of Redis, and stores on it that are closed after the test."""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_urlsafe
from typing import Any

import pytest
import redis
from tornado.ioloop import IOLoop

from stormcellar.stores import StoreOptions
from stormcellar.stores.redis import RedisStore
from tests.conftest import StartServer
from tests.stores.redis.samples import OpenRedis, redis_client
from tests.support.backends import Backend, Server

KINDS = ["redis8", "redis6", "valkey", "redis_cluster"]


@pytest.fixture(params=KINDS)
def each_redis(request: pytest.FixtureRequest) -> Backend:
    """Each kind of Redis in turn."""
    found: Backend = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=KINDS)
def own_redis(request: pytest.FixtureRequest, start_server: StartServer) -> Server:
    """A server of each kind that the test may stop."""
    return start_server(request.param)


@pytest.fixture
def admin(each_redis: Backend) -> Iterator[redis.Redis]:
    """A client that looks behind the store's back."""
    with redis_client(each_redis.port) as client:
        yield client


@pytest.fixture
def open_redis(io_loop: IOLoop) -> Iterator[OpenRedis]:
    """A function that opens stores, which are closed after the test."""
    stores: list[RedisStore] = []

    def open_one(url: str, **options: Any) -> RedisStore:
        given = StoreOptions(**{"prefix": f"test-{token_urlsafe(6)}", **options})
        stores.append(RedisStore.from_url(url, given))
        return stores[-1]

    yield open_one
    for store in stores:
        io_loop.run_sync(store.aclose)


@pytest.fixture
def prefix() -> str:
    """A prefix that no other test uses."""
    return f"test-{token_urlsafe(6)}"


@pytest.fixture
def store(each_redis: Backend, prefix: str, io_loop: IOLoop) -> Iterator[RedisStore]:
    """A store under *prefix* on each kind of Redis."""
    opened = RedisStore.from_url(each_redis.url, StoreOptions(prefix))
    yield opened
    io_loop.run_sync(opened.aclose)

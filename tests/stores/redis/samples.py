"""What the tests of the Redis store share beside the cases of the contract."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import redis

from stormcellar.stores import Handle, Outcome, Record, Store, StoreUnavailable, Verifier
from stormcellar.stores.conformance.cases import new_record, new_verifier, rotated
from stormcellar.stores.redis import RedisStore
from tests.support.backends import Backend, Server

T = TypeVar("T")


class OpenRedis(Protocol):
    def __call__(self, url: str, **options: Any) -> RedisStore:
        """Open a store under a prefix of its own."""
        ...


def now() -> int:
    """Return Unix time in milliseconds, which the server's own expiry goes by."""
    return int(time.time() * 1000)


def verifier_of(secret: str) -> Verifier:
    """Return what the store keeps of *secret*."""
    return Verifier(urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()).decode().rstrip("="))


async def sign_in(store: Store, record: Record, user: str | None, **changes: Any) -> Outcome:
    """Rotate *record* to *user*, with the times it has and a new verifier unless told otherwise."""
    times = {"expires_ms": record.expires_ms, "deadline_ms": record.deadline_ms}
    verifier = changes.pop("verifier", None) or new_verifier()
    return await rotated(store, record.credential, verifier, user=user, **{**times, **changes})


def redis_client(port: int) -> redis.Redis:
    """Return a plain blocking client, to look at the server behind the store's back."""
    return redis.Redis(port=port, protocol=2)


def left_of(admin: redis.Redis, key: str) -> int:
    """Return how many milliseconds *key* stays."""
    left: Any = admin.pttl(key)
    return int(left)


def index_key(prefix: str, user: str) -> str:
    """Return the key of the index of *user*."""
    return f"{prefix}:u:{hashlib.sha256(user.encode()).hexdigest()}"


def follow(replica: Server, primary: Server) -> None:
    """Make *replica* a replica of *primary*, and wait until both say that it is connected."""
    with redis_client(replica.port) as admin, redis_client(primary.port) as other:
        admin.replicaof("127.0.0.1", str(primary.port))
        deadline = time.monotonic() + 20
        while True:
            info: Any = admin.info("replication")
            if info["master_link_status"] == "up":
                # The primary asks a new replica for confirmations only after its first one, a second later.
                other.set("followed", 1, px=1)
                if other.wait(1, 100) >= 1:
                    return
            assert time.monotonic() < deadline, "the replica does not connect"
            time.sleep(0.02)


@contextmanager
def paused(backend: Backend) -> Iterator[None]:
    """Freeze *backend*: connections stay open and nothing answers."""
    os.kill(backend.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(backend.pid, signal.SIGCONT)


@contextmanager
def full(backend: Backend) -> Iterator[None]:
    """Leave *backend* no memory for anything more."""
    with redis_client(backend.port) as admin:
        admin.config_set("maxmemory", 1)
        try:
            yield
        finally:
            admin.config_set("maxmemory", 0)


async def eventually(attempt: Callable[[], Awaitable[T]]) -> T:
    """Await *attempt* until it finds the server again, at most some seconds."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return await attempt()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until *holds*, at most some seconds."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def collect(store: Store, heard: list[Handle | None]) -> None:
    """Append to *heard* what *store* announces."""
    async for handle in store.gone():
        heard.append(handle)


async def announced(store: Store, heard: list[Handle | None]) -> bool:
    """Destroy new sessions until *heard* has one of them, at most some seconds; a subscription takes time."""
    ended: set[Handle | None] = set()
    deadline = time.monotonic() + 10
    while not ended & set(heard) and time.monotonic() < deadline:
        record = new_record()
        await store.create(record)
        await store.destroy(record.handle, now_ms=now())
        ended.add(record.handle)
        await asyncio.sleep(0.02)
    return bool(ended & set(heard))

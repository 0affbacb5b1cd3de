"""A store that is neither `Announcing` nor `Scannable` passes the rest of the contract."""

from __future__ import annotations

from typing import Self

import pytest

from stormcellar.stores import (
    Absent,
    Announcing,
    Credential,
    Delta,
    Handle,
    Outcome,
    Record,
    Rotation,
    Scannable,
    Store,
    StoreOptions,
)
from stormcellar.stores.conformance import StoreContract
from stormcellar.stores.memory import MemoryStore


class MinimalStore(Store):
    """Implements what every store must have, and nothing else, by another store."""

    shared = False

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    @classmethod
    def from_url(cls, url: str, options: StoreOptions) -> Self:
        """Make one in memory."""
        return cls(MemoryStore())

    async def create(self, record: Record) -> None:
        """Pass it on."""
        await self._inner.create(record)

    async def load(self, credential: Credential, *, now_ms: int) -> Record | Absent:
        """Pass it on."""
        return await self._inner.load(credential, now_ms=now_ms)

    async def apply(
        self, credential: Credential, delta: Delta, *, now_ms: int, expires_ms: int | None
    ) -> Outcome:
        """Pass it on."""
        return await self._inner.apply(credential, delta, now_ms=now_ms, expires_ms=expires_ms)

    async def rotate(self, credential: Credential, rotation: Rotation, *, now_ms: int) -> Outcome:
        """Pass it on."""
        return await self._inner.rotate(credential, rotation, now_ms=now_ms)

    async def find(self, handle: Handle, *, now_ms: int) -> Record | None:
        """Pass it on."""
        return await self._inner.find(handle, now_ms=now_ms)

    async def destroy(self, handle: Handle, *, now_ms: int) -> bool:
        """Pass it on."""
        return await self._inner.destroy(handle, now_ms=now_ms)

    async def of_user(self, user: str, *, now_ms: int) -> list[Record]:
        """Pass it on."""
        return await self._inner.of_user(user, now_ms=now_ms)

    async def ping(self) -> None:
        """Pass it on."""
        await self._inner.ping()

    async def aclose(self) -> None:
        """Pass it on."""
        await self._inner.aclose()


class TestMinimalStore(StoreContract):
    url = f"{__name__}:MinimalStore"


def test_minimal_store_lacks_the_optional_parts() -> None:
    """It neither announces nor scans, and counts nothing."""
    store = MinimalStore(MemoryStore())

    assert not isinstance(store, Announcing | Scannable)
    assert store.counters() is None


@pytest.mark.parametrize("name", ["memory", "sqlite", "redis", "mongo"])
def test_stores_of_ours_announce_and_scan(name: str) -> None:
    """Each of the stores is both."""
    module = pytest.importorskip(f"stormcellar.stores.{name}")

    store_class = getattr(module, module.__all__[0])

    assert issubclass(store_class, Announcing)
    assert issubclass(store_class, Scannable)

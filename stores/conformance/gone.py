"""The contract of `gone`: what is announced, what is not, and how listening ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from stormcellar.stores.base import Store
from stormcellar.stores.conformance.cases import (
    HOUR,
    MINUTE,
    NOTHING,
    NOW,
    created,
    is_ended,
    new_user,
    new_verifier,
    rotated,
)
from stormcellar.stores.records import Credential, Delta, Handle

HEARD_S = 10.0
"""How long a push may take, connecting included."""


class GoneContract:
    """Line 8 of the contract."""

    announces: ClassVar[bool] = True
    """Set it to False for a store on a backend that cannot push; `gone` may then yield nothing."""

    async def test_gone_tells_destroy_and_rotation(self, store: Store) -> None:
        """Every listener hears of a destroy and of a rotation without grace."""
        self._needs_push()
        async with _listening(store) as first, _listening(store) as second:
            ended, turned = await created(store), await created(store, user=new_user())
            await store.destroy(ended.handle)
            await rotated(store, turned.credential, new_verifier())

            for heard in (first, second):
                await _heard(heard, ended.handle)
                await _heard(heard, turned.handle)

    async def test_gone_tells_nothing_else(self, store: Store) -> None:
        """Writes, renewals with grace, failed rotations and expiry are not announced."""
        self._needs_push()
        async with _listening(store) as heard:
            live, expired = [await created(store, data={"a": b"1"}) for _ in range(2)]
            new = Credential(live.handle, new_verifier())
            await store.apply(live.credential, Delta(put={"a": b"2"}), now_ms=NOW, expires_ms=NOW + 2 * HOUR)
            await rotated(store, Credential(live.handle, new_verifier()), new_verifier())
            await rotated(store, live.credential, new_verifier(), Delta(expect={"a": None}))
            await rotated(store, live.credential, new.verifier, grace_ms=MINUTE)
            await rotated(store, live.credential, new_verifier())
            await store.load(expired.credential, now_ms=NOW + HOUR)
            await store.apply(expired.credential, NOTHING, now_ms=NOW + HOUR, expires_ms=NOW + 2 * HOUR)
            await rotated(store, expired.credential, new_verifier(), now_ms=NOW + HOUR)
            last = await created(store)
            await store.destroy(last.handle)
            await _heard(heard, last.handle)

        assert not {live.handle, expired.handle} & set(heard)

    async def test_gone_tells_what_is_already_so(self, store: Store) -> None:
        """Whoever confirms an announcement at once finds it true, however early it came."""
        self._needs_push()
        ending: dict[Handle, Credential] = {}
        confirmed: list[set[Credential]] = []

        async def confirm() -> None:
            async for handle in store.gone():
                if handle in ending:
                    confirmed.append(await store.alive([ending[handle]], now_ms=NOW))

        listener = asyncio.create_task(confirm())
        async with asyncio.timeout(HEARD_S):
            while len(confirmed) < 20:
                for end in (store.destroy, lambda handle: rotated(store, ending[handle], new_verifier())):
                    record = await created(store)
                    ending[record.handle] = record.credential
                    await end(record.handle)
                await asyncio.sleep(0.005)
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)

        assert not any(confirmed)

    async def test_closing_the_store_ends_every_listener(self, store: Store) -> None:
        """A loop over `gone` ends by itself, without an error, when the store is closed."""
        listeners = [asyncio.create_task(_collect(store, [])) for _ in range(3)]
        await asyncio.sleep(0.05)

        await store.aclose()

        ended = await asyncio.wait_for(asyncio.gather(*listeners), HEARD_S)
        assert ended == [None, None, None]

    async def test_listener_that_goes_away_disturbs_nobody(self, store: Store) -> None:
        """After one listener is cancelled in its wait, destroy works and the others still hear."""
        leaving = asyncio.create_task(_collect(store, []))
        await asyncio.sleep(0.05)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)

        record = await created(store)
        assert await store.destroy(record.handle) is True
        assert await is_ended(store, record.credential)
        if self.announces:
            async with _listening(store):
                pass

    def _needs_push(self) -> None:
        if not self.announces:
            pytest.skip("this store's backend cannot push")


async def _collect(store: Store, heard: list[Handle]) -> None:
    async for handle in store.gone():
        heard.append(handle)


@asynccontextmanager
async def _listening(store: Store) -> AsyncIterator[list[Handle]]:
    """Listen until the block ends; it begins when an announcement has been heard."""
    heard: list[Handle] = []
    listener = asyncio.create_task(_collect(store, heard))
    try:
        async with asyncio.timeout(HEARD_S):
            while not heard:
                await store.destroy((await created(store)).handle)
                await asyncio.sleep(0.02)
        yield heard
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)


async def _heard(heard: list[Handle], handle: Handle) -> None:
    """Return when *handle* has been heard, or fail after a while."""
    for _ in range(int(HEARD_S * 100)):
        if handle in heard:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{handle} was not announced within {HEARD_S} s")

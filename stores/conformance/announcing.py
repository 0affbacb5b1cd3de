"""Tests of `gone` and `states`: what is announced, what is not, and how listening ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import ClassVar

import pytest

from stormcellar.stores.base import Announcing, Store
from stormcellar.stores.conformance.cases import (
    ENDED,
    HOUR,
    MINUTE,
    NOTHING,
    NOW,
    UNKNOWN,
    created,
    created_many,
    is_ended,
    living,
    loaded,
    new_handle,
    new_record,
    new_user,
    new_verifier,
    rotated,
)
from stormcellar.stores.records import Credential, Delta, Handle, Record

HEARD_S = 10.0
"""How long a push may take, connecting included."""


class AnnouncingContract:
    """Tests for a store that is `Announcing`."""

    announces: ClassVar[bool] = True
    """False for a backend that cannot push; `gone` may then yield nothing."""

    @pytest.fixture
    def announcing(self, store: Store) -> Announcing:
        """Return the store, or skip the test if it is not `Announcing`."""
        if not isinstance(store, Announcing):
            pytest.skip("this store is not Announcing")
        return store

    async def test_gone_tells_destroy_and_rotation(self, announcing: Announcing) -> None:
        """Every listener receives a destroy and a rotation without grace."""
        self._needs_push()
        async with _listening(announcing) as first, _listening(announcing) as second:
            ended, turned = await created(announcing), await created(announcing, user=new_user())
            await announcing.destroy(ended.handle, now_ms=NOW)
            await rotated(announcing, turned.credential, new_verifier())

            for heard in (first, second):
                await _heard(heard, ended.handle)
                await _heard(heard, turned.handle)

    async def test_gone_says_when_it_begins(self, announcing: Announcing) -> None:
        """None comes first; what ends after it is announced, at the first try."""
        self._needs_push()
        record = await created(announcing)
        async with aclosing(announcing.gone()) as handles:
            async with asyncio.timeout(HEARD_S):
                first = await anext(handles)
                await announcing.destroy(record.handle, now_ms=NOW)
                second = await anext(handles)

        assert (first, second) == (None, record.handle)

    async def test_gone_tells_nothing_else(self, announcing: Announcing) -> None:
        """Writes, renewals with grace, failed rotations and expiry are not announced."""
        self._needs_push()
        async with _listening(announcing) as heard:
            live, expired = [await created(announcing, data={"a": b"1"}) for _ in range(2)]
            new = Credential(live.handle, new_verifier())
            await announcing.apply(
                live.credential, Delta(put={"a": b"2"}), now_ms=NOW, expires_ms=NOW + 2 * HOUR
            )
            await rotated(announcing, Credential(live.handle, new_verifier()), new_verifier())
            await rotated(announcing, live.credential, new_verifier(), Delta(expect={"a": None}))
            await rotated(announcing, live.credential, new.verifier, grace_ms=MINUTE)
            await rotated(announcing, live.credential, new_verifier(), grace_ms=MINUTE)
            await announcing.load(expired.credential, now_ms=NOW + HOUR)
            await announcing.apply(expired.credential, NOTHING, now_ms=NOW + HOUR, expires_ms=NOW + 2 * HOUR)
            await rotated(announcing, expired.credential, new_verifier(), now_ms=NOW + HOUR)
            last = await created(announcing)
            await announcing.destroy(last.handle, now_ms=NOW)
            await _heard(heard, last.handle)

        assert not {live.handle, expired.handle} & set(heard)

    async def test_gone_tells_what_is_already_so(self, announcing: Announcing) -> None:
        """When an announcement arrives, `states` already confirms it."""
        self._needs_push()
        ending: dict[Handle, Credential] = {}
        confirmed: list[set[Credential]] = []

        async def confirm() -> None:
            # A cancellation in `states` leaves the loop without closing the iterator.
            async with aclosing(announcing.gone()) as handles:
                async for handle in handles:
                    if handle in ending:
                        confirmed.append(await living(announcing, [ending[handle]]))

        listener = asyncio.create_task(confirm())
        async with asyncio.timeout(HEARD_S):
            while len(confirmed) < 20:
                for end in (
                    lambda handle: announcing.destroy(handle, now_ms=NOW),
                    lambda handle: rotated(announcing, ending[handle], new_verifier()),
                ):
                    record = await created(announcing)
                    ending[record.handle] = record.credential
                    await end(record.handle)
                await asyncio.sleep(0.005)
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)

        assert not any(confirmed)

    async def test_closing_the_store_ends_every_listener(self, announcing: Announcing) -> None:
        """A loop over `gone` ends by itself, without an error, when the store is closed."""
        listeners = [asyncio.create_task(_collect(announcing.gone(), [])) for _ in range(3)]
        await asyncio.sleep(0.05)

        await announcing.aclose()

        ended = await asyncio.wait_for(asyncio.gather(*listeners), HEARD_S)
        assert ended == [None, None, None]

    async def test_listener_that_goes_away_disturbs_nobody(self, announcing: Announcing) -> None:
        """After a waiting listener is cancelled, destroy works and other listeners still receive."""
        leaving = asyncio.create_task(_collect(announcing.gone(), []))
        await asyncio.sleep(0.05)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)

        record = await created(announcing)
        assert await announcing.destroy(record.handle, now_ms=NOW) is True
        assert await is_ended(announcing, record.credential)
        if self.announces:
            async with _listening(announcing):
                pass

    async def test_states_takes_none_and_one(self, announcing: Announcing) -> None:
        """No credentials return nothing; a live one returns its record, without the data."""
        record = await created(announcing, user=new_user(), data={"a": b"1"})

        assert await announcing.states([], now_ms=NOW) == {}
        found = await announcing.states([record.credential], now_ms=NOW)
        assert found == {record.credential: replace(record, data={})}

    async def test_states_tells_why_there_is_none(self, announcing: Announcing) -> None:
        """Ended, expired and unknown sessions are told as `load` tells them."""
        ended, expired = await created(announcing), await created(announcing)
        unknown = Credential(new_handle(), new_verifier())
        await announcing.destroy(ended.handle, now_ms=NOW)

        found = await announcing.states([ended.credential, unknown], now_ms=NOW)
        later = await announcing.states([expired.credential], now_ms=NOW + HOUR)

        assert found == {ended.credential: ENDED, unknown: UNKNOWN}
        assert later == {expired.credential: UNKNOWN}

    async def test_states_returns_what_superseded_it(self, announcing: Announcing) -> None:
        """For a verifier that was replaced: the record with the present one, user and times included."""
        record, user = await created(announcing), new_user()
        new, wrong = new_verifier(), Credential(record.handle, new_verifier())
        await rotated(announcing, record.credential, new, user=user, auth_ms=NOW)

        found = await announcing.states([record.credential, wrong], now_ms=NOW)

        present = await loaded(announcing, Credential(record.handle, new))
        assert found == dict.fromkeys([record.credential, wrong], replace(present, data={}))
        assert (present.verifier, present.user) == (new, user)

    async def test_states_accepts_the_previous_verifier_in_its_grace(self, announcing: Announcing) -> None:
        """Until the grace ends the record has the verifier that was asked for, then the present one."""
        record, new = await created(announcing), new_verifier()
        await rotated(announcing, record.credential, new, grace_ms=MINUTE)

        [during] = (await announcing.states([record.credential], now_ms=NOW + MINUTE - 1)).values()
        [after] = (await announcing.states([record.credential], now_ms=NOW + MINUTE)).values()

        assert isinstance(during, Record) and isinstance(after, Record)
        assert (during.verifier, after.verifier) == (record.verifier, new)

    async def test_states_is_exact_for_each_of_a_thousand(self, announcing: Announcing) -> None:
        """Of a thousand credentials, read once from an iterator, each has its own answer."""
        records = [new_record(data={}) for _ in range(300)]
        await created_many(announcing, records)
        await asyncio.gather(*(announcing.destroy(record.handle, now_ms=NOW) for record in records[200:]))
        wrong = [Credential(record.handle, new_verifier()) for record in records]
        unknown = [Credential(new_handle(), new_verifier()) for _ in range(300)]
        good = [record.credential for record in records]
        asked = [each for group in zip(good, wrong, unknown, strict=True) for each in group] + good[:100]

        def once() -> Iterator[Credential]:
            yield from asked

        found = await announcing.states(once(), now_ms=NOW)

        live = {each: replace(record, data={}) for each, record in zip(good[:200], records, strict=False)}
        superseded = {each: live[good[number]] for number, each in enumerate(wrong[:200])}
        ended = dict.fromkeys([*good[200:], *wrong[200:]], ENDED)
        assert len(asked) == 1000
        assert found == {**live, **superseded, **ended, **dict.fromkeys(unknown, UNKNOWN)}

    def _needs_push(self) -> None:
        if not self.announces:
            pytest.skip("this store's backend cannot push")


async def _collect(handles: AsyncIterator[Handle | None], heard: list[Handle | None]) -> None:
    async for handle in handles:
        heard.append(handle)


@asynccontextmanager
async def _listening(store: Announcing) -> AsyncIterator[list[Handle | None]]:
    """Listen until the block ends. The block starts when `gone` says that it listens."""
    async with aclosing(store.gone()) as handles:
        async with asyncio.timeout(HEARD_S):
            heard = [await anext(handles)]
        listener = asyncio.create_task(_collect(handles, heard))
        try:
            yield heard
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)


async def _heard(heard: list[Handle | None], handle: Handle) -> None:
    """Return when *handle* has been announced, or fail after `HEARD_S`."""
    for _ in range(int(HEARD_S * 100)):
        if handle in heard:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{handle} was not announced within {HEARD_S} s")

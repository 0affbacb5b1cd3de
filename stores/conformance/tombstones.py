"""Tests of tombstones: what a destroyed session leaves, in the same step, and what nobody sees of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from stormcellar.stores.base import Store
from stormcellar.stores.conformance.cases import (
    ENDED,
    HOUR,
    MINUTE,
    NOTHING,
    NOW,
    SECOND,
    UNKNOWN,
    created,
    living,
    loaded,
    new_handle,
    new_record,
    new_user,
    new_verifier,
    rotated,
    scanned,
)
from stormcellar.stores.errors import DuplicateSession
from stormcellar.stores.records import Absent, Credential, Delta, Outcome, Record, Why

ROUNDS = 60


class TombstoneContract:
    """Tests of tombstones."""

    async def test_destroyed_session_is_ended_since_then(self, store: Store) -> None:
        """For every verifier, also one never issued, a load returns ENDED and the time of the destroy."""
        record = await created(store, user=new_user())
        current = Credential(record.handle, new_verifier())
        await rotated(store, record.credential, current.verifier, grace_ms=MINUTE)

        await store.destroy(record.handle, now_ms=NOW + 7)

        presented = [record.credential, current, Credential(record.handle, new_verifier())]
        found = [await store.load(each, now_ms=NOW + SECOND) for each in presented]
        assert found == [Absent(Why.ENDED, NOW + 7)] * 3
        assert await asyncio.gather(*(store.load(each, now_ms=NOW) for each in presented)) == found

    async def test_second_destroy_leaves_the_tombstone_as_it_is(self, store: Store) -> None:
        """It returns False, and the time in the tombstone stays that of the first."""
        record = await created(store)

        answers = [await store.destroy(record.handle, now_ms=NOW + number * SECOND) for number in range(3)]

        assert answers == [True, False, False]
        assert await store.load(record.credential, now_ms=NOW + MINUTE) == ENDED

    async def test_destroy_of_nothing_leaves_nothing(self, store: Store) -> None:
        """An unknown handle gets no tombstone, so it can still be created."""
        record = new_record()

        assert await store.destroy(record.handle, now_ms=NOW) is False
        assert await store.load(record.credential, now_ms=NOW) == UNKNOWN
        await store.create(record)
        assert await loaded(store, record.credential) == record

    async def test_destroy_of_an_expired_record(self, store: Store) -> None:
        """If the backend still has the record, destroy replaces it; otherwise it leaves no trace."""
        record = await created(store, expires_ms=NOW - MINUTE)

        was_there = await store.destroy(record.handle, now_ms=NOW)

        found = await store.load(record.credential, now_ms=NOW)
        assert found == (ENDED if was_there else UNKNOWN)

    async def test_tombstone_is_no_session(self, store: Store) -> None:
        """Nothing lists, finds, changes or signs in to a destroyed session."""
        user = new_user()
        record = await created(store, user=user)
        await store.destroy(record.handle, now_ms=NOW)
        put = Delta(put={"a": b"1"})

        assert await store.find(record.handle, now_ms=NOW) is None
        assert await store.of_user(user, now_ms=NOW) == []
        assert await living(store, [record.credential]) == set()
        assert record.handle not in await scanned(store)
        assert await store.apply(record.credential, put, now_ms=NOW, expires_ms=None) is Outcome.GONE
        assert await rotated(store, record.credential, new_verifier(), user=user) is Outcome.GONE
        assert await store.load(record.credential, now_ms=NOW) == ENDED

    async def test_create_refuses_a_tombstone(self, store: Store) -> None:
        """A record under the handle of a destroyed session is a duplicate, and changes nothing."""
        user = new_user()
        ended = await created(store)
        await store.destroy(ended.handle, now_ms=NOW)
        second = new_record(handle=ended.handle, user=user)

        with pytest.raises(DuplicateSession):
            await store.create(second)
        assert await store.load(second.credential, now_ms=NOW) == ENDED
        assert await store.of_user(user, now_ms=NOW) == []

    async def test_tombstone_is_not_logged(self, store: Store, caplog: pytest.LogCaptureFixture) -> None:
        """No operation reports a tombstone as something that does not parse."""
        caplog.set_level(logging.INFO)
        user = new_user()
        record = await created(store, user=user)
        await store.destroy(record.handle, now_ms=NOW)
        caplog.clear()

        await store.load(record.credential, now_ms=NOW)
        await store.find(record.handle, now_ms=NOW)
        await store.of_user(user, now_ms=NOW)
        await living(store, [record.credential])
        await scanned(store)
        await store.destroy(record.handle, now_ms=NOW)

        assert not [each for each in caplog.messages if record.handle in each]

    async def test_load_never_misses_an_end(self, store: Store) -> None:
        """In a race with a destroy a load returns the session or ENDED, never UNKNOWN."""
        for place in range(ROUNDS):
            record = await created(store)
            loads = [store.load(record.credential, now_ms=NOW) for _ in range(6)]
            calls: list[Coroutine[Any, Any, object]] = [*loads]
            calls.insert(place % 7, store.destroy(record.handle, now_ms=NOW))

            answers = await asyncio.gather(*calls)

            assert answers.pop(place % 7) is True
            assert all(answer in (record, ENDED) for answer in answers), answers

    async def test_one_of_parallel_destroys_ends_it(self, store: Store) -> None:
        """Among writers, sign-ins and creations exactly one destroy returns True, and its time stays."""
        user, put = new_user(), Delta(put={"late": b"1"})
        for place in range(ROUNDS):
            record = await created(store, user=user)
            credential, second = record.credential, new_verifier()
            calls: list[Coroutine[Any, Any, object]] = [
                store.apply(credential, put, now_ms=NOW, expires_ms=NOW + 2 * HOUR),
                rotated(store, credential, second, put, user=user),
                store.apply(credential, NOTHING, now_ms=NOW, expires_ms=NOW + 2 * HOUR),
                store.load(credential, now_ms=NOW),
                store.create(new_record(handle=record.handle, user=user)),
                store.find(record.handle, now_ms=NOW),
            ]
            ends = [store.destroy(record.handle, now_ms=NOW + number) for number in range(3)]
            for number, end in enumerate(ends):
                calls.insert((place + 2 * number) % 7, end)

            answers = await asyncio.gather(*calls, return_exceptions=True)

            assert answers.count(True) == 1
            assert sum(isinstance(answer, DuplicateSession) for answer in answers) == 1
            found = [answer for answer in answers if isinstance(answer, Absent)]
            presented = [credential, Credential(record.handle, second)]
            after = [await store.load(each, now_ms=NOW) for each in presented]
            assert after[0] in [Absent(Why.ENDED, NOW + number) for number in range(3)]
            assert after[1] == after[0]
            assert all(each.why is Why.SUPERSEDED or each == after[0] for each in found)
            assert await store.find(record.handle, now_ms=NOW) is None
        assert await store.of_user(user, now_ms=NOW) == []


class FindContract:
    """Tests of `find`."""

    async def test_find_returns_the_session_whatever_its_verifier(self, store: Store) -> None:
        """It has the data and the current verifier, also while a previous one is in its grace."""
        user = new_user()
        record = await created(store, user=user, auth_ms=NOW, data={"a": b"1", "b": b""})
        new = Credential(record.handle, new_verifier())

        first = await store.find(record.handle, now_ms=NOW)
        await rotated(store, record.credential, new.verifier, user=user, grace_ms=MINUTE)
        second = await store.find(record.handle, now_ms=NOW)

        assert first == record
        assert second == await loaded(store, new)

    async def test_find_returns_none_for_what_is_not_live(self, store: Store) -> None:
        """An unknown handle, and a session from its expiry on, are None; before it, it is found."""
        record = await created(store)
        at = [NOW + HOUR - 1, NOW + HOUR]

        assert await store.find(new_handle(), now_ms=NOW) is None
        assert [await store.find(record.handle, now_ms=now_ms) for now_ms in at] == [record, None]

    async def test_find_is_a_snapshot_among_writers(self, store: Store) -> None:
        """Two keys that are always written together are always found together, also by parallel calls."""
        records = [await created(store, data={"a": b"0", "b": b"0"}) for _ in range(4)]

        async def write(record: Record) -> None:
            for number in range(20):
                delta = Delta(put={"a": b"%d" % number, "b": b"%d" % number})
                await store.apply(record.credential, delta, now_ms=NOW, expires_ms=None)

        async def read(record: Record) -> list[Record | None]:
            return [await store.find(record.handle, now_ms=NOW) for _ in range(20)]

        found, _ = await asyncio.gather(
            asyncio.gather(*map(read, records)), asyncio.gather(*map(write, records))
        )

        for record, each in zip(records, found, strict=True):
            assert {one.handle for one in each if one} == {record.handle}
            assert all(one and one.data["a"] == one.data["b"] for one in each)

"""Tests with parallel calls on one session, with races that are provoked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest

from stormcellar.stores.base import Store
from stormcellar.stores.conformance.cases import (
    HOUR,
    MINUTE,
    NOTHING,
    NOW,
    created,
    handles,
    is_ended,
    living,
    loaded,
    new_record,
    new_user,
    new_verifier,
    rotated,
    scanned,
)
from stormcellar.stores.errors import DuplicateSession
from stormcellar.stores.records import Credential, Delta, Outcome, Record


class RaceContract:
    """Tests of parallel operations."""

    async def test_fifty_writers_lose_nothing(self, store: Store) -> None:
        """Parallel writes to different keys of one session all survive."""
        record = await created(store, data={})
        writes = {f"key{number}": b"%d" % number for number in range(50)}

        outcomes = await asyncio.gather(
            *(
                store.apply(record.credential, Delta(put={key: value}), now_ms=NOW, expires_ms=NOW + HOUR)
                for key, value in writes.items()
            )
        )

        assert set(outcomes) == {Outcome.APPLIED}
        assert (await loaded(store, record.credential)).data == writes

    async def test_counting_by_expectation_loses_nothing(self, store: Store) -> None:
        """Parallel increments that retry on CONFLICT add up."""
        record = await created(store, data={"n": b"0"})

        async def increment() -> None:
            for _ in range(200):
                before = (await loaded(store, record.credential)).data["n"]
                delta = Delta(put={"n": b"%d" % (int(before) + 1)}, expect={"n": before})
                if (
                    await store.apply(record.credential, delta, now_ms=NOW, expires_ms=None)
                    is Outcome.APPLIED
                ):
                    return

        await asyncio.gather(*(increment() for _ in range(20)))

        assert (await loaded(store, record.credential)).data == {"n": b"20"}

    async def test_one_of_parallel_expectations_wins(self, store: Store) -> None:
        """Of twenty writers that expect a key to be absent one is APPLIED, and its value is stored."""
        record = await created(store, data={})
        deltas = [Delta(put={"n": b"%d" % number}, expect={"n": None}) for number in range(20)]

        outcomes = await asyncio.gather(
            *(store.apply(record.credential, delta, now_ms=NOW, expires_ms=None) for delta in deltas)
        )

        assert Counter(outcomes) == {Outcome.APPLIED: 1, Outcome.CONFLICT: 19}
        winner = deltas[outcomes.index(Outcome.APPLIED)]
        assert (await loaded(store, record.credential)).data == winner.put

    async def test_one_of_parallel_creations_wins(self, store: Store) -> None:
        """Of twenty records with one handle exactly one is inserted, completely."""
        first = new_record()
        records = [new_record(handle=first.handle, data={"n": b"%d" % number}) for number in range(20)]

        results = await asyncio.gather(*map(store.create, records), return_exceptions=True)

        winners = [record for record, result in zip(records, results, strict=True) if result is None]
        losers = [result for result in results if isinstance(result, DuplicateSession)]
        assert (len(winners), len(losers)) == (1, 19)
        assert await loaded(store, winners[0].credential) == winners[0]

    @pytest.mark.parametrize(("grace_ms", "other"), [(0, Outcome.GONE), (MINUTE, Outcome.CONFLICT)])
    async def test_one_of_parallel_rotations_wins(self, store: Store, grace_ms: int, other: Outcome) -> None:
        """Of twenty rotations with one credential one is APPLIED, and all stored values are its own."""
        record = await created(store, data={})
        verifiers, users = [new_verifier() for _ in range(20)], [new_user() for _ in range(20)]

        outcomes = await asyncio.gather(
            *(
                rotated(
                    store,
                    record.credential,
                    verifier,
                    Delta(put={"user": user.encode()}),
                    user=user,
                    client=user.encode(),
                    grace_ms=grace_ms,
                )
                for verifier, user in zip(verifiers, users, strict=True)
            )
        )

        assert Counter(outcomes) == {Outcome.APPLIED: 1, other: 19}
        winner = outcomes.index(Outcome.APPLIED)
        credentials = [Credential(record.handle, verifier) for verifier in verifiers]
        assert await living(store, credentials) == {credentials[winner]}
        after, user = await loaded(store, credentials[winner]), users[winner]
        assert (after.user, after.client, after.data) == (user, user.encode(), {"user": user.encode()})
        listed = [handles(await store.of_user(each, now_ms=NOW)) for each in users]
        assert listed == [[record.handle] if each == user else [] for each in users]

    async def test_destroy_is_final_against_writers_in_flight(self, store: Store) -> None:
        """In a hundred rounds of destroy among writes, touches and sign-ins, no session is restored."""
        user = new_user()
        for place in range(100):
            record = await created(store, user=user)
            write = Delta(put={"late": b"1"})
            credential, second = record.credential, new_verifier()
            calls: list[Coroutine[Any, Any, object]] = [
                store.apply(credential, write, now_ms=NOW, expires_ms=NOW + 2 * HOUR),
                store.apply(credential, NOTHING, now_ms=NOW, expires_ms=NOW + 2 * HOUR),
                rotated(store, credential, second, write, user=user),
                store.apply(credential, write, now_ms=NOW, expires_ms=None),
                rotated(store, credential, new_verifier(), user=user, keep=frozenset()),
            ]
            calls.insert(place % 6, store.destroy(record.handle, now_ms=NOW))

            answers = await asyncio.gather(*calls)

            assert answers[place % 6] is True
            assert await is_ended(store, record.credential, user=user)
            assert await is_ended(store, Credential(record.handle, second))
        assert user not in {record.user for record in (await scanned(store)).values()}

    async def test_what_is_planted_during_a_sign_in_does_not_survive(self, store: Store) -> None:
        """Writes in a race with a rotation that keeps nothing are dropped by it or refused after it."""
        for place in range(25):
            record = await created(store, data={})
            new = Credential(record.handle, new_verifier())
            calls: list[Coroutine[Any, Any, Outcome]] = [
                store.apply(
                    record.credential, Delta(put={f"k{number}": b"1"}), now_ms=NOW, expires_ms=NOW + HOUR
                )
                for number in range(6)
            ]
            turn = rotated(store, record.credential, new.verifier, user="victim", keep=frozenset())
            calls.insert(place % 7, turn)

            outcomes = await asyncio.gather(*calls)

            assert outcomes[place % 7] is Outcome.APPLIED
            assert (await loaded(store, new)).data == {}
            await store.destroy(record.handle, now_ms=NOW)

    async def test_load_never_sees_half_a_write(self, store: Store) -> None:
        """Two keys that are always written together are always read together."""
        record = await created(store, data={"a": b"0", "b": b"0"})

        async def write() -> None:
            for number in range(60):
                value = b"%d" % number
                delta = Delta(put={"a": value, "b": value})
                await store.apply(record.credential, delta, now_ms=NOW, expires_ms=None)

        async def read() -> list[Record]:
            return [await loaded(store, record.credential) for _ in range(60)]

        results = await asyncio.gather(write(), read(), read(), write())

        seen = [each.data for records in results if records for each in records]
        assert len(seen) == 120
        assert all(data["a"] == data["b"] for data in seen)

    async def test_reading_the_index_loses_no_sign_in(self, store: Store) -> None:
        """Reading the user index during sign-ins never removes a session from it."""
        for _ in range(10):
            alice, bob = new_user("alice"), new_user("bob")
            records = [await created(store, user=user) for user in (alice, None) * 5]

            async def sign_in(record: Record, *users: str) -> None:
                credential = record.credential
                for user in users:
                    new = Credential(record.handle, new_verifier())
                    assert await rotated(store, credential, new.verifier, user=user) is Outcome.APPLIED
                    credential = new

            calls = [sign_in(record, bob, alice, bob, alice) for record in records]
            await _while_reading(store, alice, calls)

            assert handles(await store.of_user(alice, now_ms=NOW)) == handles(records)
            assert await store.of_user(bob, now_ms=NOW) == []

    async def test_parallel_sign_ins_are_all_listed(self, store: Store) -> None:
        """Twenty parallel sign-ins of one user are all listed, and stay listed while others end."""
        user = new_user()
        records = [await created(store) for _ in range(20)]
        ending = [await created(store, user=user) for _ in range(20)]
        await asyncio.gather(
            *(rotated(store, record.credential, new_verifier(), user=user) for record in records),
            *(store.of_user(user, now_ms=NOW) for _ in range(5)),
        )

        results = await asyncio.gather(
            *(store.of_user(user, now_ms=NOW) for _ in range(10)),
            *(store.destroy(record.handle, now_ms=NOW) for record in ending),
            *(store.of_user(user, now_ms=NOW) for _ in range(10)),
        )

        listed = [set(handles(each)) for each in results if isinstance(each, list)]
        assert len(listed) == 20
        assert all(set(handles(records)) <= each for each in listed)
        assert handles(await store.of_user(user, now_ms=NOW)) == handles(records)

    async def test_hundred_and_sixty_calls_are_all_answered(self, store: Store) -> None:
        """With more parallel calls than connections, each call gets its own reply."""
        records = [new_record(data={"mine": b"%d" % number}) for number in range(160)]

        await asyncio.gather(*map(store.create, records))
        found = await asyncio.gather(*(store.load(record.credential, now_ms=NOW) for record in records))

        assert found == records


async def _while_reading(store: Store, user: str, calls: list[Coroutine[Any, Any, None]]) -> None:
    """Run *calls* while readers, started at different moments, list the sessions of *user*."""
    is_done = asyncio.Event()

    async def read(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        while not is_done.is_set():
            await store.of_user(user, now_ms=NOW)
            await asyncio.sleep(0)

    readers = [asyncio.create_task(read(turns)) for turns in range(8)]
    try:
        await asyncio.gather(*calls)
    finally:
        is_done.set()
        await asyncio.gather(*readers)

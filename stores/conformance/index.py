"""The contract of `of_user`, `alive` and `scan`: all that is there, once, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from stormcellar.stores.base import Store
from stormcellar.stores.conformance.cases import (
    HOSTILE_USERS,
    HOUR,
    MINUTE,
    NOTHING,
    NOW,
    SECOND,
    created,
    created_many,
    handles,
    loaded,
    new_handle,
    new_record,
    new_user,
    new_verifier,
    rotated,
    scanned,
)
from stormcellar.stores.records import Credential, Delta, Handle, Outcome, Record


class IndexContract:
    """Lines 7 and 9 of the contract."""

    # 7. Sessions of a user

    async def test_of_user_returns_each_session_once_without_data(self, store: Store) -> None:
        """Every live session of the user is there once, whole but for its data, and none of another's."""
        user = new_user()
        records = [await created(store, user=user, auth_ms=NOW - n, client=b"%d" % n) for n in range(3)]
        for other in (None, user[:-1], user + "x", user.upper(), "*"):
            await created(store, user=other)
        await created(store, user=user, expires_ms=NOW - 10 * MINUTE)

        found = await store.of_user(user, now_ms=NOW)

        assert sorted(found, key=lambda each: -(each.auth_ms or 0)) == [
            replace(record, data={}) for record in records
        ]

    async def test_of_user_is_empty_for_a_stranger(self, store: Store) -> None:
        """A user without sessions has an empty list, asked twice too."""
        user = new_user()

        assert [await store.of_user(user, now_ms=NOW) for _ in range(2)] == [[], []]

    @pytest.mark.parametrize("grace_ms", [0, MINUTE])
    async def test_of_user_follows_sign_in_and_renewal(self, store: Store, grace_ms: int) -> None:
        """A session bound by a rotation is listed once, with its current verifier and times."""
        user = new_user()
        record = await created(store)
        second, third = (Credential(record.handle, new_verifier()) for _ in range(2))
        await rotated(store, record.credential, second.verifier, user=user, auth_ms=NOW)
        await rotated(store, second, third.verifier, user=user, auth_ms=NOW, grace_ms=grace_ms)
        await store.apply(third, NOTHING, now_ms=NOW + SECOND, expires_ms=NOW + 2 * HOUR)

        found = await store.of_user(user, now_ms=NOW + SECOND)

        assert found == [replace(await loaded(store, third), data={})]
        assert found[0].expires_ms == NOW + 2 * HOUR

    async def test_of_user_follows_a_change_of_user(self, store: Store) -> None:
        """A session that another user signs in to leaves the first one's list, and may come back."""
        alice, bob = new_user("alice"), new_user("bob")
        record = await created(store, user=alice)
        credential, listed = record.credential, []
        for user in (bob, alice, None):
            new = Credential(record.handle, new_verifier())
            await rotated(store, credential, new.verifier, user=user)
            credential = new
            listed.append([handles(await store.of_user(each, now_ms=NOW)) for each in (alice, bob)])

        assert listed == [[[], [record.handle]], [[record.handle], []], [[], []]]

    async def test_failed_sign_in_lists_nothing(self, store: Store) -> None:
        """A rotation that is GONE or CONFLICT binds no session to its user."""
        user = new_user()
        record = await created(store, data={"a": b"1"})
        wrong = Credential(record.handle, new_verifier())
        conflict = Delta(expect={"a": None})

        gone = await rotated(store, wrong, new_verifier(), user=user)
        refused = await rotated(store, record.credential, new_verifier(), conflict, user=user)

        assert (gone, refused) == (Outcome.GONE, Outcome.CONFLICT)
        assert await store.of_user(user, now_ms=NOW) == []

    async def test_failed_sign_in_unlists_nothing(self, store: Store) -> None:
        """A rotation that fails leaves a session in its own user's list, also when for that same user."""
        user = new_user()
        record = await created(store, user=user, data={"a": b"1"})
        conflict = Delta(expect={"a": None})

        for target in (user, new_user(), None):
            await rotated(store, record.credential, new_verifier(), conflict, user=target)
            await rotated(store, Credential(record.handle, new_verifier()), new_verifier(), user=target)

        assert handles(await store.of_user(user, now_ms=NOW)) == [record.handle]

    async def test_old_session_stays_listed(self, store: Store) -> None:
        """A session bound long ago is listed as long as it lives, however often the list is read."""
        user = new_user()
        long_ago = NOW - 11 * HOUR
        record = await created(store, user=user, created_ms=long_ago, rotated_ms=long_ago, seen_ms=long_ago)
        late = NOW + HOUR - 1

        assert [handles(await store.of_user(user, now_ms=late)) for _ in range(3)] == [[record.handle]] * 3

    async def test_list_outlives_its_shortest_session(self, store: Store) -> None:
        """A session that lives on is listed after others, added before and after it, have ended."""
        user, past = new_user(), NOW - 10 * MINUTE
        soon, later = NOW + HOUR // 2, NOW + HOUR - MINUTE
        await created(store, user=user, expires_ms=soon, deadline_ms=soon)
        long_lived = await created(store, user=user, expires_ms=NOW + 2 * HOUR)
        await created(store, user=user, expires_ms=later, deadline_ms=later)
        await created(store, user=user, created_ms=past, seen_ms=past, expires_ms=past, deadline_ms=past)

        assert len(await store.of_user(user, now_ms=NOW)) == 3
        assert handles(await store.of_user(user, now_ms=NOW + HOUR)) == [long_lived.handle]

    @pytest.mark.parametrize("user", HOSTILE_USERS, ids=ascii)
    async def test_hostile_user_names_are_only_names(self, store: Store, user: str) -> None:
        """Any non-empty name keeps its own sessions, bound at creation or by rotation, and no other's."""
        before = handles(await store.of_user(user, now_ms=NOW))
        record, anonymous = await created(store, user=user), await created(store)
        new = Credential(anonymous.handle, new_verifier())
        await rotated(store, anonymous.credential, new.verifier, user=user)
        others = [await created(store, user=other) for other in HOSTILE_USERS if other != user]

        found = await store.of_user(user, now_ms=NOW)

        mine = sorted([record.handle, anonymous.handle])
        assert sorted(set(handles(found)) - set(before)) == mine
        assert {each.user for each in found} == {user}
        assert (await loaded(store, record.credential), (await loaded(store, new)).user) == (record, user)
        for handle in (*mine, *handles(others)):
            await store.destroy(handle)
        assert handles(await store.of_user(user, now_ms=NOW)) == before

    # 7. Alive

    async def test_alive_takes_none_and_one(self, store: Store) -> None:
        """No credentials are an empty set; one live credential is itself."""
        record = await created(store)

        assert await store.alive([], now_ms=NOW) == set()
        assert await store.alive([record.credential], now_ms=NOW) == {record.credential}

    async def test_alive_is_exact_for_each_of_a_thousand(self, store: Store) -> None:
        """Of a thousand credentials, read once from an iterator, exactly the live ones come back."""
        records = [new_record(data={}) for _ in range(300)]
        await created_many(store, records)
        await asyncio.gather(*(store.destroy(record.handle) for record in records[200:]))
        wrong = [Credential(record.handle, new_verifier()) for record in records]
        unknown = [Credential(new_handle(), new_verifier()) for _ in range(300)]
        good = [record.credential for record in records]
        asked = [each for group in zip(good, wrong, unknown, strict=True) for each in group] + good[:100]

        def once() -> Iterator[Credential]:
            yield from asked

        live = await store.alive(once(), now_ms=NOW)

        assert len(asked) == 1000
        assert live == set(good[:200])

    # 9. Scan

    async def test_scan_yields_every_live_record_whole(self, store: Store) -> None:
        """Five hundred records come with data and current verifier; ended and expired ones do not."""
        records = [new_record(user=f"scanned {number % 7}") for number in range(500)]
        await created_many(store, records)
        turned = Credential(records[0].handle, new_verifier())
        await rotated(store, records[0].credential, turned.verifier, grace_ms=MINUTE)
        expected = {turned.handle: await loaded(store, turned)}
        expected |= {record.handle: record for record in records[1:450]}
        await asyncio.gather(*(store.destroy(record.handle) for record in records[450:]))
        expired = await created(store, expires_ms=NOW - 10 * MINUTE)

        found = await scanned(store)

        mine = {expired.handle, *handles(records)}
        assert {handle: record for handle, record in found.items() if handle in mine} == expected
        await asyncio.gather(*(store.destroy(record.handle) for record in records[:450]))

    async def test_scan_survives_changes_under_way(self, store: Store) -> None:
        """A scan during which sessions come and go yields every one that was there throughout."""
        staying = [new_record() for _ in range(150)]
        leaving = [new_record() for _ in range(150)]
        await created_many(store, [each for pair in zip(staying, leaving, strict=True) for each in pair])
        found: set[Handle] = set()

        async for record in store.scan(now_ms=NOW):
            found.add(record.handle)
            if leaving:
                await store.destroy(leaving.pop().handle)
                await store.destroy((await created(store)).handle)

        assert set(handles(staying)) <= found
        await asyncio.gather(*(store.destroy(record.handle) for record in (*staying, *leaving)))

    async def test_scan_may_be_left_early(self, store: Store) -> None:
        """A caller that stops after one record leaves a store that still answers."""
        records: list[Record] = [await created(store) for _ in range(3)]
        scan = store.scan(now_ms=NOW)

        async for _ in scan:
            break
        if aclose := getattr(scan, "aclose", None):
            await aclose()

        assert [await loaded(store, record.credential) for record in records] == records

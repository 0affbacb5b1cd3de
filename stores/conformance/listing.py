"""Tests of `of_user` and `scan`: every session that should be there, once, and no other."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from stormcellar.stores.base import Scannable, Store
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
    new_record,
    new_user,
    new_verifier,
    rotated,
    scanned,
)
from stormcellar.stores.records import Credential, Delta, Handle, Outcome, Record


class IndexContract:
    """Tests of `of_user`."""

    async def test_of_user_returns_each_session_once_without_data(self, store: Store) -> None:
        """Every live session of the user is returned once, complete except its data, and no other user's."""
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
        """A user without sessions has an empty list, also the second time."""
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
        """A session that another user signs in to leaves the first user's list, and can return to it."""
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
        """A failed rotation leaves the session in its user's list, also if it was for the same user."""
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
        """A session is still listed after others, added before and after it, have ended."""
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
        """Any non-empty name has its own sessions, bound by creation or rotation, and no other user's."""
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
            await store.destroy(handle, now_ms=NOW)
        assert handles(await store.of_user(user, now_ms=NOW)) == before


class ScannableContract:
    """Tests for a store that is `Scannable`."""

    @pytest.fixture
    def scannable(self, store: Store) -> Scannable:
        """Return the store, or skip the test if it is not `Scannable`."""
        if not isinstance(store, Scannable):
            pytest.skip("this store is not Scannable")
        return store

    async def test_scan_yields_every_live_record_whole(self, scannable: Scannable) -> None:
        """It yields five hundred live records with data and current verifier, and no ended or expired one."""
        records = [new_record(user=f"scanned {number % 7}") for number in range(500)]
        await created_many(scannable, records)
        turned = Credential(records[0].handle, new_verifier())
        await rotated(scannable, records[0].credential, turned.verifier, grace_ms=MINUTE)
        expected = {turned.handle: await loaded(scannable, turned)}
        expected |= {record.handle: record for record in records[1:450]}
        await asyncio.gather(*(scannable.destroy(record.handle, now_ms=NOW) for record in records[450:]))
        expired = await created(scannable, expires_ms=NOW - 10 * MINUTE)

        found = await scanned(scannable)

        mine = {expired.handle, *handles(records)}
        assert {handle: record for handle, record in found.items() if handle in mine} == expected
        await asyncio.gather(*(scannable.destroy(record.handle, now_ms=NOW) for record in records[:450]))

    async def test_scan_survives_changes_under_way(self, scannable: Scannable) -> None:
        """A scan yields every session that exists throughout, while others are created and destroyed."""
        staying = [new_record() for _ in range(150)]
        leaving = [new_record() for _ in range(150)]
        await created_many(scannable, [each for pair in zip(staying, leaving, strict=True) for each in pair])
        found: set[Handle] = set()

        async for record in scannable.scan(now_ms=NOW):
            found.add(record.handle)
            if leaving:
                await scannable.destroy(leaving.pop().handle, now_ms=NOW)
                await scannable.destroy((await created(scannable)).handle, now_ms=NOW)

        assert set(handles(staying)) <= found
        await asyncio.gather(
            *(scannable.destroy(record.handle, now_ms=NOW) for record in (*staying, *leaving))
        )

    async def test_scan_may_be_left_early(self, scannable: Scannable) -> None:
        """After a caller stops at the first record, the store still works."""
        records: list[Record] = [await created(scannable) for _ in range(3)]
        scan = scannable.scan(now_ms=NOW)

        async for _ in scan:
            break
        if aclose := getattr(scan, "aclose", None):
            await aclose()

        assert [await loaded(scannable, record.credential) for record in records] == records

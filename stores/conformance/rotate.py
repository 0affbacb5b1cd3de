"""Tests of `rotate` and `destroy`: one atomic step, one winner, and nothing is restored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stormcellar.stores.base import Store
from stormcellar.stores.conformance.cases import (
    BINARY,
    HOUR,
    MINUTE,
    NOTHING,
    NOW,
    SECOND,
    SUPERSEDED,
    UNKNOWN,
    created,
    handles,
    is_ended,
    living,
    loaded,
    new_user,
    new_verifier,
    rotated,
    scanned,
    superseded,
)
from stormcellar.stores.records import Credential, Delta, Outcome, Record


class RotateContract:
    """Tests of `rotate` and `destroy`."""

    # Rotate

    async def test_rotation_sets_all_it_is_given(self, store: Store) -> None:
        """Verifier, user, times and client are as given, the expiry may move back, `created_ms` stays."""
        record = await created(store, created_ms=NOW - HOUR, rotated_ms=NOW - HOUR, seen_ms=NOW - MINUTE)
        user, new = new_user(), Credential(record.handle, new_verifier())
        now, expires, deadline = NOW + 7, NOW + 30 * MINUTE, NOW + 2 * HOUR
        changes: dict[str, Any] = {"user": user, "auth_ms": NOW + 5, "client": BINARY}

        outcome = await rotated(
            store,
            record.credential,
            new.verifier,
            now_ms=now,
            expires_ms=expires,
            deadline_ms=deadline,
            **changes,
        )

        assert outcome is Outcome.APPLIED
        assert await loaded(store, new) == replace(
            record,
            verifier=new.verifier,
            rotated_ms=now,
            seen_ms=now,
            expires_ms=expires,
            deadline_ms=deadline,
            **changes,
        )
        assert await store.load(new, now_ms=expires) == UNKNOWN
        assert await store.of_user(user, now_ms=expires) == []

    async def test_rotation_clears_what_it_is_given_as_none(self, store: Store) -> None:
        """A rotation to an anonymous session leaves no user, no sign-in time and no client behind."""
        user = new_user()
        record = await created(store, user=user, auth_ms=NOW)
        new = Credential(record.handle, new_verifier())

        await rotated(store, record.credential, new.verifier, user=None, auth_ms=None, client=b"")

        after = await loaded(store, new)
        assert (after.user, after.auth_ms, after.client) == (None, None, b"")
        assert await store.of_user(user, now_ms=NOW) == []

    async def test_rotation_does_not_move_seen_back(self, store: Store) -> None:
        """A rotation by a process with a slow clock does not change `seen_ms`."""
        record = await created(store, seen_ms=NOW + 5 * SECOND)
        new = Credential(record.handle, new_verifier())

        await rotated(store, record.credential, new.verifier, now_ms=NOW)

        after = await loaded(store, new)
        assert (after.seen_ms, after.rotated_ms) == (NOW + 5 * SECOND, NOW)

    async def test_old_verifier_is_dead_at_once(self, store: Store) -> None:
        """After a rotation without grace the old verifier cannot load, write or rotate."""
        record = await created(store, user=new_user())
        old, new = record.credential, Credential(record.handle, new_verifier())
        await rotated(store, old, new.verifier)

        assert await store.load(old, now_ms=NOW) == SUPERSEDED
        assert await store.apply(old, Delta(put={"a": b"9"}), now_ms=NOW, expires_ms=None) is Outcome.GONE
        assert await rotated(store, old, new_verifier()) is Outcome.GONE
        assert await living(store, [old, new]) == {new}
        assert (await loaded(store, new)).data == record.data

    @pytest.mark.parametrize(
        ("keep", "survivors"),
        [
            (None, {"a", "b", "planted"}),
            (frozenset({"a", "not-there"}), {"a"}),
            (frozenset({"a", "planted"}), {"a", "planted"}),
            (frozenset(), set()),
        ],
        ids=["all", "one", "two", "none"],
    )
    async def test_keep_drops_also_what_came_after_the_load(
        self, store: Store, keep: frozenset[str] | None, survivors: set[str]
    ) -> None:
        """Every key outside `keep` is dropped, also one written after the caller loaded the session."""
        record = await created(store, data={"a": b"$b", "b": BINARY})
        planted = Delta(put={"planted": b""})
        await store.apply(record.credential, planted, now_ms=NOW, expires_ms=None)
        new = Credential(record.handle, new_verifier())

        await rotated(store, record.credential, new.verifier, keep=keep)

        everything = {**record.data, **planted.put}
        assert (await loaded(store, new)).data == {key: everything[key] for key in survivors}

    async def test_delta_applies_after_keep(self, store: Store) -> None:
        """The delta puts a key that `keep` lacks, and drops one that `keep` contains."""
        record = await created(store, data={"a": b"1", "b": b"2", "c": b"3", "d": b"4"})
        new = Credential(record.handle, new_verifier())
        delta = Delta(put={"a": b"$$ROOT", "user": b"$user"}, drop=frozenset({"c", "d"}))

        await rotated(store, record.credential, new.verifier, delta, keep=frozenset({"b", "c"}))

        assert (await loaded(store, new)).data == {"a": b"$$ROOT", "b": b"2", "user": b"$user"}

    async def test_delta_of_a_rotation_that_keeps_all_applies(self, store: Store) -> None:
        """With `keep=None` the delta changes its own keys and no other."""
        record = await created(store, data={"a": b"1", "b": b"2", "c": b"3"})
        new = Credential(record.handle, new_verifier())
        delta = Delta(put={"a": b"9", "d": b""}, drop=frozenset({"c"}), expect={"b": b"2"})

        await rotated(store, record.credential, new.verifier, delta)

        assert (await loaded(store, new)).data == {"a": b"9", "b": b"2", "d": b""}

    async def test_expect_is_tested_before_keep_drops(self, store: Store) -> None:
        """An expectation is tested against the stored record, even for a key that `keep` drops."""
        record = await created(store, data={"a": b"1"})
        new = Credential(record.handle, new_verifier())
        absent, present = Delta(expect={"a": None}), Delta(expect={"a": b"1"})

        conflict = await rotated(store, record.credential, new.verifier, absent, keep=frozenset())
        applied = await rotated(store, record.credential, new.verifier, present, keep=frozenset())

        assert (conflict, applied) == (Outcome.CONFLICT, Outcome.APPLIED)
        assert (await loaded(store, new)).data == {}

    async def test_rotation_with_a_grace_needs_the_current_verifier(self, store: Store) -> None:
        """A previous verifier gets CONFLICT in its grace and GONE afterwards, and changes nothing."""
        record = await created(store)
        new = Credential(record.handle, new_verifier())
        await rotated(store, record.credential, new.verifier, grace_ms=MINUTE)
        before = await loaded(store, new)

        outcomes = [
            await rotated(store, record.credential, new_verifier(), user="x", now_ms=at, grace_ms=SECOND)
            for at in (NOW + MINUTE - 1, NOW + MINUTE)
        ]

        assert outcomes == [Outcome.CONFLICT, Outcome.GONE]
        assert await loaded(store, new) == before

    async def test_rotation_without_a_grace_accepts_a_previous_verifier(self, store: Store) -> None:
        """At a change of privilege a verifier in its grace rotates, in one step; afterwards it is GONE."""
        user, late = new_user(), NOW + MINUTE
        record, other = await created(store), await created(store)
        second, third = (Credential(record.handle, new_verifier()) for _ in range(2))
        await rotated(store, record.credential, second.verifier, grace_ms=MINUTE)
        await rotated(store, other.credential, new_verifier(), grace_ms=MINUTE)

        applied = await rotated(store, record.credential, third.verifier, user=user, now_ms=late - 1)
        too_late = await rotated(store, other.credential, new_verifier(), user=user, now_ms=late)

        assert (applied, too_late) == (Outcome.APPLIED, Outcome.GONE)
        earlier = [await store.load(each, now_ms=late) for each in (record.credential, second)]
        assert earlier == [superseded(late - 1)] * 2
        assert await living(store, [record.credential, second, third], now_ms=late) == {third}
        assert handles(await store.of_user(user, now_ms=late)) == [record.handle]

    async def test_rotation_is_judged_at_arrival_and_dated_now(self, store: Store) -> None:
        """`now_ms` only judges liveness; rotation, grace and activity have the time `rotated_ms`."""
        record = await created(store)
        second, third = (Credential(record.handle, new_verifier()) for _ in range(2))
        arrived, issued = NOW + HOUR - 1, NOW + HOUR + MINUTE
        times: dict[str, Any] = {"rotated_ms": issued, "expires_ms": issued + HOUR}

        late = await rotated(store, record.credential, new_verifier(), now_ms=NOW + HOUR, **times)
        turn = await rotated(
            store, record.credential, second.verifier, now_ms=arrived, grace_ms=MINUTE, **times
        )

        assert (late, turn) == (Outcome.GONE, Outcome.APPLIED)
        after = await loaded(store, second, now_ms=issued)
        assert (after.rotated_ms, after.seen_ms, after.expires_ms) == (issued, issued, issued + HOUR)
        assert isinstance(await store.load(record.credential, now_ms=issued + MINUTE - 1), Record)
        assert await store.load(record.credential, now_ms=issued + MINUTE) == superseded(issued)
        assert await rotated(store, second, third.verifier, now_ms=arrived) is Outcome.APPLIED

    async def test_rotation_without_grace_ends_an_earlier_grace(self, store: Store) -> None:
        """At a change of privilege every earlier verifier is dead at once."""
        record = await created(store)
        second, third = (Credential(record.handle, new_verifier()) for _ in range(2))
        await rotated(store, record.credential, second.verifier, grace_ms=HOUR // 2)

        await rotated(store, second, third.verifier, user=new_user(), now_ms=NOW + SECOND)

        assert [await store.load(each, now_ms=NOW + SECOND) for each in (record.credential, second)] == [
            superseded(NOW + SECOND),
            superseded(NOW + SECOND),
        ]
        every = [record.credential, second, third]
        assert await living(store, every, now_ms=NOW + SECOND) == {third}

    async def test_only_the_last_verifier_has_a_grace(self, store: Store) -> None:
        """A second renewal within a grace ends the first verifier and gives the second one its own grace."""
        record = await created(store)
        second, third = (Credential(record.handle, new_verifier()) for _ in range(2))
        every = [record.credential, second, third]
        await rotated(store, record.credential, second.verifier, grace_ms=30 * MINUTE)

        await rotated(store, second, third.verifier, now_ms=NOW + MINUTE, grace_ms=MINUTE)

        assert await living(store, every, now_ms=NOW + 2 * MINUTE - 1) == {second, third}
        assert await living(store, every, now_ms=NOW + 2 * MINUTE) == {third}

    # Destroy

    async def test_destroy_needs_no_verifier_and_is_idempotent(self, store: Store) -> None:
        """The handle is enough to end a session; a second call finds nothing to remove."""
        user = new_user()
        record = await created(store, user=user)
        other = await created(store, user=user)

        answers = [await store.destroy(record.handle, now_ms=NOW) for _ in range(3)]

        assert answers == [True, False, False]
        assert await is_ended(store, record.credential, user=user)
        assert record.handle not in await scanned(store)
        assert handles(await store.of_user(user, now_ms=NOW)) == [other.handle]
        assert await loaded(store, other.credential) == other

    async def test_destroy_ends_a_grace_too(self, store: Store) -> None:
        """After a renewal, destroy ends the session for both verifiers."""
        record = await created(store)
        new = Credential(record.handle, new_verifier())
        await rotated(store, record.credential, new.verifier, grace_ms=MINUTE)

        await store.destroy(record.handle, now_ms=NOW)

        assert await is_ended(store, record.credential)
        assert await is_ended(store, new)

    async def test_nothing_resurrects_a_destroyed_session(self, store: Store) -> None:
        """A write, a touch and a sign-in after destroy return GONE and restore nothing."""
        user = new_user()
        record = await created(store, user=user)
        await store.destroy(record.handle, now_ms=NOW)
        write = Delta(put={"a": b"9"})
        end = NOW + 12 * HOUR

        outcomes = [
            await store.apply(record.credential, NOTHING, now_ms=NOW, expires_ms=end),
            await store.apply(record.credential, write, now_ms=NOW, expires_ms=end),
            await store.apply(record.credential, write, now_ms=NOW, expires_ms=None),
            await rotated(store, record.credential, new_verifier(), write, user=user),
            await rotated(store, record.credential, new_verifier(), user=user, keep=frozenset()),
        ]

        assert outcomes == [Outcome.GONE] * 5
        assert await is_ended(store, record.credential, user=user)
        assert record.handle not in await scanned(store)

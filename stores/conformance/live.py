"""Tests of liveness: for which credential, and until which millisecond, a session is live."""

from __future__ import annotations

import pytest

from stormcellar.stores.base import Scannable, Store
from stormcellar.stores.conformance.cases import (
    BINARY,
    HOUR,
    MINUTE,
    NOTHING,
    NOW,
    SECOND,
    SUPERSEDED,
    TREACHEROUS_KEYS,
    UNKNOWN,
    created,
    handles,
    is_ended,
    living,
    loaded,
    new_handle,
    new_user,
    new_verifier,
    rotated,
    scanned,
    superseded,
)
from stormcellar.stores.records import Credential, Delta, Outcome


class LiveContract:
    """Tests of liveness."""

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"user": "someone", "auth_ms": NOW - 5, "client": BINARY},
            {"auth_ms": 0, "client": b"", "data": {}},
            {"data": {"empty": b"", "binary": BINARY, "op": b"$a", "big": b"x" * 65_000}},
            {"created_ms": NOW - 4, "rotated_ms": NOW - 3, "seen_ms": NOW - 2, "expires_ms": NOW + HOUR + 1},
            {"data": {f"key{number}": b"%d" % number for number in range(256)}},
            {"data": {key: key.encode() for key in TREACHEROUS_KEYS}},
        ],
        ids=["anonymous", "signed-in", "empty", "opaque", "times", "many", "treacherous"],
    )
    async def test_load_returns_what_was_created(self, store: Store, changes: dict[str, object]) -> None:
        """Every field is returned as it was stored, whatever bytes and names it contains."""
        record = await created(store, **changes)

        assert await store.load(record.credential, now_ms=NOW) == record

    async def test_unknown_handle_is_ended(self, store: Store) -> None:
        """A handle that was never created has no session and gets none."""
        credential = Credential(new_handle(), new_verifier())

        assert await is_ended(store, credential)
        assert await rotated(store, credential, new_verifier()) is Outcome.GONE
        assert await store.destroy(credential.handle, now_ms=NOW) is False
        assert await is_ended(store, credential)

    async def test_verifier_never_issued_is_superseded_and_powerless(self, store: Store) -> None:
        """A known handle with a wrong verifier is SUPERSEDED, writes nothing and ends nothing."""
        record = await created(store)
        wrong = Credential(record.handle, new_verifier())

        assert await store.load(wrong, now_ms=NOW) == SUPERSEDED
        assert await store.apply(wrong, Delta(put={"a": b"9"}), now_ms=NOW, expires_ms=None) is Outcome.GONE
        assert await rotated(store, wrong, new_verifier(), user="thief") is Outcome.GONE
        assert await living(store, [wrong]) == set()
        assert await loaded(store, record.credential) == record

    async def test_session_is_live_to_the_last_millisecond(self, store: Store) -> None:
        """One millisecond before its expiry a session is live for every operation."""
        user, last = new_user(), NOW + HOUR - 1
        record = await created(store, user=user)

        assert await loaded(store, record.credential, now_ms=last) == record
        assert await living(store, [record.credential], now_ms=last) == {record.credential}
        assert handles(await store.of_user(user, now_ms=last)) == [record.handle]
        if isinstance(store, Scannable):
            assert record.handle in await scanned(store, now_ms=last)
        assert await store.apply(record.credential, NOTHING, now_ms=last, expires_ms=None) is Outcome.APPLIED
        assert await rotated(store, record.credential, new_verifier(), now_ms=last) is Outcome.APPLIED

    async def test_session_is_ended_at_its_expiry(self, store: Store) -> None:
        """At its expiry a session is ended for every operation and verifier, and none restores it."""
        user, at = new_user(), NOW + HOUR
        record = await created(store, user=user)
        wrong = Credential(record.handle, new_verifier())

        assert [await store.load(each, now_ms=at) for each in (record.credential, wrong)] == [UNKNOWN] * 2
        assert await living(store, [record.credential, wrong], now_ms=at) == set()
        assert await store.of_user(user, now_ms=at) == []
        assert record.handle not in await scanned(store, now_ms=at)
        touch = await store.apply(record.credential, NOTHING, now_ms=at, expires_ms=at + HOUR)
        assert touch is Outcome.GONE
        assert await rotated(store, record.credential, new_verifier(), now_ms=at) is Outcome.GONE
        assert await store.load(record.credential, now_ms=at) == UNKNOWN

    async def test_slid_expiry_is_the_one_that_counts(self, store: Store) -> None:
        """After a touch the session ends at the new expiry, to the millisecond, and not at the old one."""
        user, end = new_user(), NOW + 2 * HOUR
        record = await created(store, user=user)
        await store.apply(record.credential, NOTHING, now_ms=NOW + MINUTE, expires_ms=end)

        assert (await loaded(store, record.credential, now_ms=end - 1)).expires_ms == end
        assert handles(await store.of_user(user, now_ms=end - 1)) == [record.handle]
        assert await store.load(record.credential, now_ms=end) == UNKNOWN
        assert await store.of_user(user, now_ms=end) == []

    async def test_record_created_expired_is_never_live(self, store: Store) -> None:
        """A record that has expired before its creation is ended, whether or not it was removed."""
        user = new_user()
        record = await created(store, user=user, expires_ms=NOW - 10 * MINUTE)

        assert await is_ended(store, record.credential, user=user)
        assert await is_ended(store, Credential(record.handle, new_verifier()))
        assert await rotated(store, record.credential, new_verifier(), user=user) is Outcome.GONE
        assert record.handle not in await scanned(store)
        assert await is_ended(store, record.credential, user=user)

    async def test_record_stays_for_a_request_that_arrived_before_its_expiry(self, store: Store) -> None:
        """A request that arrived nine minutes ago loads, slides and rotates what has expired meanwhile."""
        arrived, user = NOW - 9 * MINUTE, new_user()
        times = {"created_ms": NOW - HOUR, "seen_ms": arrived - MINUTE, "expires_ms": arrived + 1}
        slid, turned = [await created(store, user=user, **times) for _ in range(2)]
        new = Credential(turned.handle, new_verifier())

        assert await loaded(store, slid.credential, now_ms=arrived) == slid
        assert await store.load(slid.credential, now_ms=NOW) == UNKNOWN
        touch = await store.apply(slid.credential, NOTHING, now_ms=arrived, expires_ms=NOW + HOUR)
        turn = await rotated(
            store,
            turned.credential,
            new.verifier,
            user=user,
            now_ms=arrived,
            rotated_ms=NOW,
            expires_ms=NOW + HOUR,
        )

        assert (touch, turn) == (Outcome.APPLIED, Outcome.APPLIED)
        assert await living(store, [slid.credential, new]) == {slid.credential, new}
        assert handles(await store.of_user(user, now_ms=NOW)) == handles([slid, turned])

    async def test_clock_an_hour_behind_ends_no_session(self, store: Store) -> None:
        """By a clock that is an hour behind the backend's, sessions are created, renewed, bound and found."""
        now, user = NOW - HOUR, new_user()
        times = {"created_ms": now, "rotated_ms": now, "seen_ms": now, "expires_ms": now + 30 * MINUTE}
        record = await created(store, deadline_ms=now + 40 * MINUTE, **times)
        new = Credential(record.handle, new_verifier())

        touch = await store.apply(record.credential, NOTHING, now_ms=now + 1, expires_ms=now + 31 * MINUTE)
        turn = await rotated(
            store,
            record.credential,
            new.verifier,
            user=user,
            now_ms=now + 2,
            expires_ms=now + 30 * MINUTE,
            deadline_ms=now + 40 * MINUTE,
        )

        assert (touch, turn) == (Outcome.APPLIED, Outcome.APPLIED)
        assert (await loaded(store, new, now_ms=now + 3)).user == user
        assert handles(await store.of_user(user, now_ms=now + 3)) == [record.handle]

    async def test_grace_accepts_the_previous_verifier_until_it_ends(self, store: Store) -> None:
        """In its grace the previous verifier loads (as presented) and writes; afterwards not."""
        record = await created(store)
        new, end = Credential(record.handle, new_verifier()), NOW + 3 * SECOND + MINUTE
        await rotated(store, record.credential, new.verifier, now_ms=NOW + 3 * SECOND, grace_ms=MINUTE)
        both, old = [record.credential, new], record.credential
        put = Delta(put={"late": b"1"})

        assert await store.apply(old, put, now_ms=end - 1, expires_ms=None) is Outcome.APPLIED
        assert (await loaded(store, old, now_ms=end - 1)).verifier == old.verifier
        assert (await loaded(store, new, now_ms=end - 1)).verifier == new.verifier
        assert await living(store, both, now_ms=end - 1) == set(both)
        assert await store.load(old, now_ms=end) == superseded(NOW + 3 * SECOND)
        assert await living(store, both, now_ms=end) == {new}
        assert await store.apply(old, NOTHING, now_ms=end, expires_ms=None) is Outcome.GONE
        assert (await loaded(store, new, now_ms=end)).data["late"] == b"1"

    async def test_grace_ends_with_the_session(self, store: Store) -> None:
        """When the session expires, a previous verifier in its grace is ended, too."""
        record = await created(store)
        await rotated(store, record.credential, new_verifier(), expires_ms=NOW + HOUR, grace_ms=2 * HOUR)

        assert await store.load(record.credential, now_ms=NOW + HOUR) == UNKNOWN
        assert await living(store, [record.credential], now_ms=NOW + HOUR) == set()

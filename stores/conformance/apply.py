"""Tests of `apply`: what it changes, under which conditions, and what it does not change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stormcellar.stores.base import Store
from stormcellar.stores.conformance.cases import (
    BINARY,
    HOUR,
    MINUTE,
    NOTHING,
    NOW,
    SECOND,
    TREACHEROUS_KEYS,
    UNKNOWN,
    created,
    loaded,
    new_user,
    new_verifier,
    rotated,
)
from stormcellar.stores.records import Credential, Delta, Outcome


class ApplyContract:
    """Tests of `apply`."""

    async def test_apply_puts_and_drops_together(self, store: Store) -> None:
        """Keys are put, replaced and dropped; other keys, and all fields besides the data, stay."""
        record = await created(store, user=new_user(), auth_ms=NOW, data={"a": b"1", "b": b"2", "c": b"3"})
        delta = Delta(put={"a": b"", "new": BINARY}, drop=frozenset({"b", "never-there"}))

        outcome = await store.apply(record.credential, delta, now_ms=NOW, expires_ms=None)

        assert outcome is Outcome.APPLIED
        assert await loaded(store, record.credential) == replace(
            record, data={"a": b"", "c": b"3", "new": BINARY}
        )

    async def test_apply_treats_treacherous_keys_as_data(self, store: Store) -> None:
        """Keys named like fields of a record are put, expected and dropped like any other."""
        record = await created(store)
        values = {key: b"$" + key.encode() for key in TREACHEROUS_KEYS}

        put = await store.apply(record.credential, Delta(put=values), now_ms=NOW, expires_ms=None)
        after_put = await loaded(store, record.credential)
        drop = Delta(drop=frozenset(values), expect={**values})
        dropped = await store.apply(record.credential, drop, now_ms=NOW, expires_ms=None)

        assert (put, dropped) == (Outcome.APPLIED, Outcome.APPLIED)
        assert after_put == replace(record, data={**record.data, **values})
        assert await loaded(store, record.credential) == record

    async def test_apply_slides_seen_and_expiry(self, store: Store) -> None:
        """With an expiry a write counts as activity: `seen_ms` and the expiry move forward."""
        record = await created(store)
        now, expires = NOW + MINUTE, NOW + MINUTE + HOUR

        await store.apply(record.credential, Delta(put={"a": b"2"}), now_ms=now, expires_ms=expires)

        assert await loaded(store, record.credential) == replace(
            record, seen_ms=now, expires_ms=expires, data={**record.data, "a": b"2"}
        )

    @pytest.mark.parametrize(
        ("now_ms", "expires_ms", "seen_after", "expires_after"),
        [
            (NOW - SECOND, NOW + HOUR - 1, NOW, NOW + HOUR),
            (NOW + SECOND, NOW + HOUR - 1, NOW + SECOND, NOW + HOUR),
            (NOW - SECOND, NOW + HOUR + 1, NOW, NOW + HOUR + 1),
            (NOW + SECOND, NOW + 12 * HOUR, NOW + SECOND, NOW + 12 * HOUR),
        ],
        ids=["both-back", "expiry-back", "seen-back", "up-to-the-deadline"],
    )
    async def test_touch_never_moves_back(
        self, store: Store, now_ms: int, expires_ms: int, seen_after: int, expires_after: int
    ) -> None:
        """An empty delta moves `seen_ms` and the expiry, each only forward, and writes no data."""
        record = await created(store)

        outcome = await store.apply(record.credential, NOTHING, now_ms=now_ms, expires_ms=expires_ms)

        assert outcome is Outcome.APPLIED
        assert await loaded(store, record.credential) == replace(
            record, seen_ms=seen_after, expires_ms=expires_after
        )

    @pytest.mark.parametrize("delta", [NOTHING, Delta(put={"a": b"2"})], ids=["touch", "write"])
    async def test_write_without_expiry_is_not_activity(self, store: Store, delta: Delta) -> None:
        """With `expires_ms=None` the data is written, and neither `seen_ms` nor the expiry moves."""
        record = await created(store)
        later = NOW + 30 * MINUTE

        outcome = await store.apply(record.credential, delta, now_ms=later, expires_ms=None)

        assert outcome is Outcome.APPLIED
        expected = replace(record, data={**record.data, **delta.put})
        assert await loaded(store, record.credential, now_ms=later) == expected
        assert await store.load(record.credential, now_ms=NOW + HOUR) == UNKNOWN

    @pytest.mark.parametrize(
        "expect",
        [
            {"a": b"1"},
            {"absent": None},
            {"empty": b""},
            {"binary": BINARY},
            {"a": b"1", "absent": None, "empty": b"", "binary": BINARY},
        ],
        ids=["value", "absent", "empty", "binary", "all"],
    )
    async def test_expectations_that_hold_let_a_write_through(
        self, store: Store, expect: dict[str, bytes | None]
    ) -> None:
        """A write or touch is applied if all of its expectations hold."""
        record = await created(store, data={"a": b"1", "empty": b"", "binary": BINARY})

        touch = await store.apply(record.credential, Delta(expect=expect), now_ms=NOW, expires_ms=None)
        delta = Delta(put={"b": b"2"}, expect=expect)
        write = await store.apply(record.credential, delta, now_ms=NOW, expires_ms=None)

        assert (touch, write) == (Outcome.APPLIED, Outcome.APPLIED)
        assert (await loaded(store, record.credential)).data == {**record.data, "b": b"2"}

    @pytest.mark.parametrize(
        "expect",
        [
            {"a": b"2"},
            {"a": None},
            {"a": b""},
            {"a": b"1 "},
            {"absent": b""},
            {"absent": b"null"},
            {"empty": None},
            {"binary": BINARY[:-1]},
            {"a": b"1", "absent": None, "empty": None},
            {"empty": None, "a": b"1", "absent": None},
        ],
        ids=ascii,
    )
    async def test_expectation_that_fails_changes_nothing(
        self, store: Store, expect: dict[str, bytes | None]
    ) -> None:
        """One expectation that does not hold makes a write, a touch or a rotation a CONFLICT."""
        record = await created(store, data={"a": b"1", "empty": b"", "binary": BINARY})
        delta = Delta(put={"a": b"9", "absent": b"9"}, drop=frozenset({"empty"}), expect=expect)
        late, expires = NOW + MINUTE, NOW + 2 * HOUR

        write = await store.apply(record.credential, delta, now_ms=late, expires_ms=expires)
        touch = await store.apply(record.credential, Delta(expect=expect), now_ms=late, expires_ms=expires)
        turn = await rotated(store, record.credential, new_verifier(), delta, user="x", now_ms=late)

        assert (write, touch, turn) == (Outcome.CONFLICT,) * 3
        assert await loaded(store, record.credential) == record

    async def test_gone_comes_before_conflict(self, store: Store) -> None:
        """A session that is not live is GONE, whether or not the expectations would hold."""
        record = await created(store, data={"a": b"1"})
        wrong = Credential(record.handle, new_verifier())
        await store.destroy((ended := await created(store)).handle, now_ms=NOW)

        for expect in ({"a": b"1"}, {"a": b"2"}, {"absent": None}):
            delta = Delta(put={"a": b"9"}, expect=expect)
            for credential, now in (
                (wrong, NOW),
                (ended.credential, NOW),
                (record.credential, NOW + HOUR),
            ):
                applied = await store.apply(credential, delta, now_ms=now, expires_ms=None)
                turned = await rotated(store, credential, new_verifier(), delta, now_ms=now)
                assert (applied, turned) == (Outcome.GONE, Outcome.GONE)

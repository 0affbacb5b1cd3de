"""Tests of what no other module tests: what is refused, what is a copy, times, logs, closing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

import pytest

from stormcellar.stores.base import Store
from stormcellar.stores.conformance.cases import (
    DAY,
    HOSTILE_KEYS,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    SUPERSEDED,
    UNKNOWN,
    created,
    handles,
    is_ended,
    living,
    loaded,
    new_record,
    new_rotation,
    new_user,
    new_verifier,
    rotated,
    scanned,
    superseded,
)
from stormcellar.stores.errors import DuplicateSession
from stormcellar.stores.records import LATEST_MS, Credential, Delta, Record

TIMES = ["created_ms", "rotated_ms", "auth_ms", "seen_ms", "expires_ms", "deadline_ms"]


class BasicContract:
    """Tests that need one session and one call after the other."""

    # Create

    async def test_create_refuses_a_handle_that_exists(self, store: Store) -> None:
        """A second record under one handle raises DuplicateSession and changes nothing."""
        user = new_user()
        record = await created(store)
        second = replace(new_record(user=user, data={"a": b"9"}), handle=record.handle)

        with pytest.raises(DuplicateSession):
            await store.create(second)
        assert await loaded(store, record.credential) == record
        assert await store.load(second.credential, now_ms=NOW) == SUPERSEDED
        assert await store.of_user(user, now_ms=NOW) == []

    @pytest.mark.parametrize("key", HOSTILE_KEYS, ids=ascii)
    async def test_create_refuses_a_key_outside_the_grammar(self, store: Store, key: str) -> None:
        """A record with such a key raises ValueError and is not written."""
        user = new_user()
        record = new_record(user=user, data={"good": b"1", key: b"2"})

        with pytest.raises(ValueError):
            await store.create(record)
        assert await is_ended(store, record.credential, user=user)

    @pytest.mark.parametrize("time_ms", [-1, LATEST_MS + 1])
    @pytest.mark.parametrize("name", TIMES)
    async def test_time_that_no_calendar_has_is_refused(self, store: Store, name: str, time_ms: int) -> None:
        """A record or rotation with such a time raises ValueError, and nothing is written."""
        user, first = new_user(), 0 if time_ms < 0 else LATEST_MS
        record, refused = await created(store), new_record(user=user, **{name: time_ms})

        with pytest.raises(ValueError, match="year 9999"):
            await store.create(refused)
        assert await is_ended(store, refused.credential, user=user)
        if name in ("rotated_ms", "auth_ms", "expires_ms", "deadline_ms"):
            with pytest.raises(ValueError, match="year 9999"):
                new_rotation(new_verifier(), **{name: time_ms})
            assert await loaded(store, record.credential) == record
        times: dict[str, Any] = {name: first}
        await store.create(replace(refused, **times))

    @pytest.mark.parametrize("user", ["", "\ud800", "a\udfff"], ids=ascii)
    async def test_what_is_no_user_is_refused(self, store: Store, user: str) -> None:
        """An empty user, or one with a lone surrogate, raises ValueError, and nothing is written."""
        record, refused = await created(store), new_record(user=user)

        with pytest.raises(ValueError):
            await store.create(refused)
        with pytest.raises(ValueError):
            await rotated(store, record.credential, new_verifier(), user=user)
        with pytest.raises(ValueError):
            await store.of_user(user, now_ms=NOW)
        assert await loaded(store, record.credential) == record
        assert await store.load(refused.credential, now_ms=NOW) == UNKNOWN

    @pytest.mark.parametrize("key", HOSTILE_KEYS, ids=ascii)
    async def test_delta_refuses_a_key_outside_the_grammar(self, key: str) -> None:
        """A delta with such a key, put, dropped or expected, cannot be made."""
        with pytest.raises(ValueError):
            Delta(put={key: b"1"})
        with pytest.raises(ValueError):
            Delta(drop=frozenset({key}))
        with pytest.raises(ValueError):
            Delta(expect={key: None})

    # Load

    async def test_reading_writes_nothing(self, store: Store) -> None:
        """No reading operation slides an expiry or counts as activity."""
        record = await created(store, user=new_user())
        later = NOW + 30 * MINUTE

        await store.load(record.credential, now_ms=later)
        await living(store, [record.credential], now_ms=later)
        await store.of_user(str(record.user), now_ms=later)
        await scanned(store, now_ms=later)

        assert await loaded(store, record.credential, now_ms=later) == record
        assert await store.load(record.credential, now_ms=NOW + HOUR) == UNKNOWN

    async def test_data_is_copied_in_and_out(self, store: Store) -> None:
        """A caller that changes a mapping it passed or received changes no stored session."""
        given, put = {"a": b"1"}, {"a": b"1"}
        fresh, written, turned = [await created(store, data=given) for _ in range(3)]
        new = Credential(turned.handle, new_verifier())
        await store.apply(written.credential, Delta(put=put), now_ms=NOW, expires_ms=None)
        await rotated(store, turned.credential, new.verifier, Delta(put=put), keep=frozenset())
        credentials = [fresh.credential, written.credential, new]
        got = [(await loaded(store, each)).data for each in credentials]
        got += [record.data for record in (await scanned(store)).values()]

        for mapping in (given, put, *got):
            if isinstance(mapping, MutableMapping):
                mapping["a"] = b"changed"

        assert [(await loaded(store, each)).data for each in credentials] == [{"a": b"1"}] * 3

    async def test_loaded_record_is_a_snapshot(self, store: Store) -> None:
        """Later writes do not change a record that is already loaded."""
        record = await created(store, data={"a": b"1"})
        before = await loaded(store, record.credential)
        await store.apply(record.credential, Delta(put={"a": b"2"}), now_ms=NOW, expires_ms=None)

        assert before.data == {"a": b"1"}

    # Time, secrecy and closing

    async def test_the_callers_clock_is_the_only_one(self, store: Store) -> None:
        """A session in the far future is live or expired by `now_ms`, whatever the real time."""
        user, then = new_user(), NOW + 30 * DAY
        record = await created(
            store, user=user, created_ms=then, seen_ms=then, expires_ms=then + HOUR, deadline_ms=then + DAY
        )

        assert await loaded(store, record.credential, now_ms=then) == record
        new = Credential(record.handle, new_verifier())
        await rotated(store, record.credential, new.verifier, now_ms=then, user=user, grace_ms=SECOND)
        assert (await loaded(store, new, now_ms=then)).rotated_ms == then
        assert await store.load(record.credential, now_ms=then + SECOND) == superseded(then)
        assert handles(await store.of_user(user, now_ms=then)) == [record.handle]
        assert await store.load(new, now_ms=then + HOUR) == UNKNOWN

    async def test_nothing_of_a_session_is_logged(
        self, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No log line of any operation contains data, a verifier or client."""
        caplog.set_level(logging.INFO)
        record = await created(store, data={"a": b"marked-value"}, client=b"marked-client")
        new, wrong = (Credential(record.handle, new_verifier()) for _ in range(2))
        await store.load(record.credential, now_ms=NOW)
        conflict = Delta(put={"a": b"marked-put"}, expect={"a": b"marked-expect"})
        await store.apply(record.credential, conflict, now_ms=NOW, expires_ms=None)
        await store.apply(record.credential, Delta(put={"a": b"marked"}), now_ms=NOW, expires_ms=None)
        await rotated(store, record.credential, new.verifier, client=b"marked-client")
        await store.load(wrong, now_ms=NOW)
        with pytest.raises(DuplicateSession) as duplicate:
            await store.create(record)
        await store.destroy(record.handle, now_ms=NOW)

        said = caplog.text + str(duplicate.value)
        for secret in ("marked", record.verifier, new.verifier, wrong.verifier):
            assert secret not in said

    async def test_ping_answers_as_often_as_asked(self, store: Store) -> None:
        """Repeated and parallel pings succeed and change no session."""
        record = await created(store)

        await store.ping()
        await asyncio.gather(*(store.ping() for _ in range(5)))

        assert await loaded(store, record.credential) == record

    async def test_aclose_is_idempotent(self, store: Store) -> None:
        """Closing again, also in parallel, raises nothing."""
        record: Record = await created(store)
        await store.destroy(record.handle, now_ms=NOW)

        await asyncio.gather(store.aclose(), store.aclose())
        await store.aclose()

    async def test_closing_an_unused_store_passes(self, store: Store) -> None:
        """A store that was never used closes without an error."""
        await store.aclose()

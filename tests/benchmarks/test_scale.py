"""The sessions and levels of the scale benchmark."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks import scale
from benchmarks.harness import bulk_sessions
from stormcellar import Lifetime
from stormcellar.sessions.cookie_attributes import CookieAttributes
from stormcellar.sessions.cookies import Cookies
from stormcellar.sessions.signing import KeyRing
from stormcellar.stores import open_store


def test_a_bulk_session_is_signed_in_and_needs_no_touch() -> None:
    """The server reads its cookie, its record is live, and an hour of reads writes nothing."""
    key = b"k" * 32
    cookie = bulk_sessions.cookie_headers([7], key=key)[0]
    store, now_ms = open_store("memory"), 1_000_000
    asyncio.run(bulk_sessions.create_sessions(store, 10, now_ms=now_ms))
    read = Cookies(KeyRing([key]), CookieAttributes(), max_age_s=60, clock=lambda: 0)
    sid = read.read([cookie])
    assert sid is not None
    record: Any = asyncio.run(store.load(sid.credential, now_ms=now_ms))

    assert record.user == "user7"
    assert not Lifetime().wants_touch(record, now_ms=now_ms + 3_600_000)


def test_levels_are_powers_of_ten() -> None:
    """From a thousand up to the highest; only the highest if it is below a thousand."""
    assert scale._levels(1_000_000) == [1_000, 10_000, 100_000, 1_000_000]
    assert scale._levels(50_000) == [1_000, 10_000]
    assert scale._levels(500) == [500]

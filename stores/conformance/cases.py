"""Values and helpers of the contract tests: times, new records, hostile names, rotations, tallies."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from stormcellar.stores.base import Announcing, Scannable, Store
from stormcellar.stores.counters import Counters, Rule, Tally
from stormcellar.stores.records import (
    Absent,
    Credential,
    Delta,
    Handle,
    Outcome,
    Record,
    Rotation,
    Verifier,
    Why,
)

# Near the real time, because backends remove expired records by their own clock. It is fixed at import, so
# live records expire half an hour after it or later, and expired ones ten minutes before it.
NOW = int(time.time() * 1000)
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
DAY = 24 * HOUR

NOTHING = Delta()

UNKNOWN = Absent(Why.UNKNOWN)
ENDED = Absent(Why.ENDED, NOW)
"""Of a session that was destroyed at `NOW`."""
SUPERSEDED = Absent(Why.SUPERSEDED, NOW)
"""Of a session whose current verifier was issued at `NOW`."""


def superseded(since_ms: int) -> Absent:
    """Return why a load finds no session for a verifier that was replaced at *since_ms*."""
    return Absent(Why.SUPERSEDED, since_ms)


BINARY = bytes(range(256)) + b"\r\n$5\r\n\xff\xfe{}"

HOSTILE_USERS = [
    "$set",
    "$where",
    "a.b",
    "a",
    "{tag}",
    "{}",
    "*",
    "[a-z]?",
    "nul\0tail",
    "nul",
    "line\r\nbreak",
    " ",
    "None",
    "0",
    "#user",
    "user:alice",
    "Alice",
    "alice",
    "caf\u00e9",
    "cafe\u0301",
    "\U0001f980\U00020000",
    "/../\\%00",
    "long" * 256,
    "long" * 255,
]

# Names that a store might use for its own fields; all are ordinary data keys.
TREACHEROUS_KEYS = [
    *("_", "_id", "handle", "verifier", "previous", "user", "created_ms", "rotated_ms", "auth_ms"),
    *("seen_ms", "expires_ms", "expires", "deadline_ms", "grace_ms", "client", "data", "put", "drop"),
    *("K", "k", "k:1", "k-1", "k_1", "__proto__", "constructor", "a" * 64),
]

HOSTILE_KEYS = ["", "#user", "$set", "a.b", "1a", "-a", "a b", "a\n", "a\0", "a*", "\u00e9", "{k}", "a" * 65]


def new_handle() -> Handle:
    """Return a handle that no record has."""
    return Handle(secrets.token_urlsafe(16))


def new_verifier() -> Verifier:
    """Return a verifier that was never issued."""
    return Verifier(secrets.token_urlsafe(32))


def new_user(name: str = "user") -> str:
    """Return a user that has no session."""
    return f"{name}-{secrets.token_hex(8)}"


def new_record(**changes: Any) -> Record:
    """Return an anonymous record, created now, that expires in an hour and ends in twelve."""
    record = Record(
        handle=new_handle(),
        verifier=new_verifier(),
        user=None,
        created_ms=NOW,
        rotated_ms=NOW,
        auth_ms=None,
        seen_ms=NOW,
        expires_ms=NOW + HOUR,
        deadline_ms=NOW + 12 * HOUR,
        client=b'{"agent": "a"}',
        data={"a": b"1", "b": b'"two"'},
    )
    return replace(record, **changes)


def new_rotation(verifier: Verifier, *, now_ms: int = NOW, **changes: Any) -> Rotation:
    """Return a rotation to *verifier* that keeps all data, anonymous, with the times of a `new_record`."""
    rotation = Rotation(
        new_verifier=verifier,
        rotated_ms=now_ms,
        user=None,
        auth_ms=None,
        client=b"",
        expires_ms=now_ms + HOUR,
        deadline_ms=now_ms + 12 * HOUR,
        keep=None,
    )
    return replace(rotation, **changes)


async def created(store: Store, **changes: Any) -> Record:
    """Create a `new_record` in *store* and return it."""
    record = new_record(**changes)
    await store.create(record)
    return record


async def rotated(
    store: Store,
    credential: Credential,
    verifier: Verifier,
    delta: Delta = NOTHING,
    *,
    now_ms: int = NOW,
    **changes: Any,
) -> Outcome:
    """Rotate *credential* to *verifier*: all data kept, anonymous, unless *changes* say otherwise."""
    rotation = new_rotation(verifier, delta=delta, now_ms=now_ms, **changes)
    return await store.rotate(credential, rotation, now_ms=now_ms)


async def loaded(store: Store, credential: Credential, *, now_ms: int = NOW) -> Record:
    """Load a session that must be live."""
    record = await store.load(credential, now_ms=now_ms)
    assert isinstance(record, Record), f"the session is {record}"
    return record


async def is_ended(store: Store, credential: Credential, *, user: str | None = None) -> bool:
    """Return whether every operation reports that there is no such session."""
    answers = [
        await store.load(credential, now_ms=NOW) in (UNKNOWN, ENDED),
        await store.find(credential.handle, now_ms=NOW) is None,
        await store.apply(credential, NOTHING, now_ms=NOW, expires_ms=None) is Outcome.GONE,
        await living(store, [credential]) == set(),
        user is None or credential.handle not in handles(await store.of_user(user, now_ms=NOW)),
    ]
    return all(answers)


def handles(records: Iterable[Record]) -> list[Handle]:
    """Return the handles of *records*, sorted, with duplicates."""
    return sorted(record.handle for record in records)


async def scanned(store: Store, *, now_ms: int = NOW) -> dict[Handle, Record]:
    """Return what a scan yields, by handle; nothing if the store is not `Scannable`."""
    if not isinstance(store, Scannable):
        return {}
    return {record.handle: record async for record in store.scan(now_ms=now_ms)}


async def living(store: Store, credentials: Collection[Credential], *, now_ms: int = NOW) -> set[Credential]:
    """Return which of *credentials* are live: by `states` if the store is `Announcing`, else by `load`."""
    if isinstance(store, Announcing):
        states = await store.states(credentials, now_ms=now_ms)
        return {
            each
            for each, state in states.items()
            if isinstance(state, Record) and state.verifier == each.verifier
        }
    found = [await store.load(each, now_ms=now_ms) for each in credentials]
    return {each for each, answer in zip(credentials, found, strict=True) if isinstance(answer, Record)}


async def created_many(store: Store, records: Iterable[Record]) -> None:
    """Create *records*, fifty at a time."""
    waiting = list(records)
    for start in range(0, len(waiting), 50):
        await asyncio.gather(*map(store.create, waiting[start : start + 50]))


# --- counters ---

THREE = Rule(limit=3, first_wait_ms=10 * SECOND, longest_wait_ms=MINUTE, keep_ms=HOUR)

ONE = Rule(limit=1, first_wait_ms=10 * SECOND, longest_wait_ms=MINUTE, keep_ms=HOUR)

ONLY_COUNTED = Rule(limit=1, first_wait_ms=0, longest_wait_ms=0, keep_ms=HOUR)


def new_key() -> str:
    """Return the key of a tally that does not exist."""
    return f"key-{secrets.token_hex(8)}"


async def takes(
    counters: Counters, key: str, number: int, rule: Rule = THREE, *, now_ms: int = NOW
) -> list[Tally]:
    """Try to take *number* of them, one after the other, all at *now_ms*."""
    return [await counters.take(key, rule, now_ms=now_ms) for _ in range(number)]


async def limited(counters: Counters, key: str, extra: int = 0) -> Tally:
    """Take all that are free under `THREE`, then *extra* more, each as soon as allowed; return the last."""
    tally = (await takes(counters, key, 3))[-1]
    for _ in range(extra):
        tally = await counters.take(key, THREE, now_ms=tally.next_ms)
        assert tally.taken
    return tally

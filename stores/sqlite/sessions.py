"""The operations of the contract as functions that run within a transaction, in the thread of a `Worker`.

A transaction is one atomic step, so each reads a row, decides, and writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from stormcellar.stores import changes
from stormcellar.stores.errors import DuplicateSession
from stormcellar.stores.records import (
    TOMBSTONE_MS,
    Absent,
    Credential,
    Delta,
    Handle,
    Outcome,
    Record,
    Rotation,
    Why,
)
from stormcellar.stores.sqlite.records import Stored, Tombstone, live, packed, parsed, state

REMOVED_PER_CALL = 8
"""More than the one row that a call can add, so that old ones do not accumulate."""


def create(db: sqlite3.Connection, prefix: str, record: Record) -> None:
    """Insert *record*, and remove some rows that have had their time."""
    query = "SELECT 1 FROM sessions WHERE prefix = ? AND handle = ?"
    if db.execute(query, (prefix, record.handle)).fetchone():
        raise DuplicateSession(record.handle)
    _remove_old(db, prefix, record.seen_ms)
    db.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL)",
        (
            *(prefix, record.handle, record.verifier, record.user),
            *(record.created_ms, record.rotated_ms, record.auth_ms),
            *(record.seen_ms, record.expires_ms, record.deadline_ms),
            *(record.client, packed(record.data)),
        ),
    )


def load(db: sqlite3.Connection, prefix: str, credential: Credential, now_ms: int) -> Record | Absent:
    """Return the live session with the verifier of *credential*, or why there is none."""
    handle, verifier = credential
    found = state(_find(db, prefix, handle), verifier, now_ms)
    if isinstance(found, Record) and found.verifier != verifier:
        return Absent(Why.SUPERSEDED, found.rotated_ms)
    return found


def find_live(db: sqlite3.Connection, prefix: str, handle: Handle, now_ms: int) -> Record | None:
    """Return the live session with its current verifier."""
    found = _find(db, prefix, handle)
    return found.record if isinstance(found, Stored) and found.record.expires_ms > now_ms else None


def apply(
    db: sqlite3.Connection,
    prefix: str,
    credential: Credential,
    delta: Delta,
    now_ms: int,
    expires_ms: int | None,
) -> Outcome:
    """Write *delta* if the session is live and every `expect` holds, and slide the expiry."""
    found = live(_find(db, prefix, credential.handle), credential, now_ms)
    if found is None:
        return Outcome.GONE
    record = found.record
    if not changes.holds(delta.expect, record.data):
        return Outcome.CONFLICT
    data, seen_ms, end_ms = packed(changes.written(record.data, delta)), record.seen_ms, record.expires_ms
    if expires_ms is not None:
        seen_ms, end_ms = max(seen_ms, now_ms), max(end_ms, expires_ms)
    db.execute(
        "UPDATE sessions SET data = ?, seen_ms = ?, expires_ms = ? WHERE prefix = ? AND handle = ?",
        (data, seen_ms, end_ms, prefix, record.handle),
    )
    return Outcome.APPLIED


def rotate(
    db: sqlite3.Connection, prefix: str, credential: Credential, rotation: Rotation, now_ms: int
) -> Outcome:
    """Replace the verifier, and with it everything that changes at sign-in."""
    found = live(_find(db, prefix, credential.handle), credential, now_ms)
    if found is None:
        return Outcome.GONE
    has_grace = rotation.grace_ms > 0
    is_refused = has_grace and credential.verifier != found.record.verifier
    if is_refused or not changes.holds(rotation.delta.expect, found.record.data):
        return Outcome.CONFLICT
    record = changes.rotated(found.record, rotation)
    grace = (found.record.verifier, rotation.rotated_ms + rotation.grace_ms) if has_grace else (None, None)
    db.execute(
        "UPDATE sessions SET verifier = ?, user = ?, rotated_ms = ?, auth_ms = ?, seen_ms = ?, "
        "expires_ms = ?, deadline_ms = ?, client = ?, data = ?, previous = ?, grace_until_ms = ? "
        "WHERE prefix = ? AND handle = ?",
        (
            *(record.verifier, record.user, record.rotated_ms, record.auth_ms),
            *(record.seen_ms, record.expires_ms, record.deadline_ms),
            *(record.client, packed(record.data), *grace, prefix, record.handle),
        ),
    )
    if not has_grace:
        _announce(db, prefix, record.handle, rotation.rotated_ms)
    return Outcome.APPLIED


def destroy(db: sqlite3.Connection, prefix: str, handle: Handle, now_ms: int) -> bool:
    """Replace the record by a tombstone, and return whether there was one."""
    query = "SELECT ended_ms FROM sessions WHERE prefix = ? AND handle = ?"
    row = db.execute(query, (prefix, handle)).fetchone()
    if row is None or row[0] is not None:
        return False
    # The columns that are not named become NULL.
    db.execute("REPLACE INTO sessions (prefix, handle, ended_ms) VALUES (?, ?, ?)", (prefix, handle, now_ms))
    _announce(db, prefix, handle, now_ms)
    return True


def remove(db: sqlite3.Connection, prefix: str, handle: Handle) -> bool:
    """Remove the record and leave nothing, for a full disk; return whether there was one."""
    query = "DELETE FROM sessions WHERE prefix = ? AND handle = ? AND ended_ms IS NULL"
    return db.execute(query, (prefix, handle)).rowcount > 0


def of_user(db: sqlite3.Connection, prefix: str, user: str, now_ms: int) -> list[Record]:
    """Return the live sessions of *user*, without their data."""
    query = "SELECT * FROM sessions_without_data WHERE prefix = ? AND user = ? AND expires_ms > ?"
    return _records(db.execute(query, (prefix, user, now_ms)))


def states(
    db: sqlite3.Connection, prefix: str, credentials: Sequence[Credential], now_ms: int
) -> dict[Credential, Record | Absent]:
    """Return what has become of the session of each of *credentials*."""
    query = "SELECT * FROM sessions_without_data WHERE prefix = ? AND handle = ?"
    return {
        each: state(parsed(db.execute(query, (prefix, each.handle)).fetchone()), each.verifier, now_ms)
        for each in credentials
    }


def page(
    db: sqlite3.Connection, prefix: str, after: int, size: int, now_ms: int
) -> tuple[list[Record], int | None]:
    """Return live sessions whose row numbers come after *after*, and the last number; None at the end."""
    # The plus keeps SQLite from using the index on the prefix, which would sort all rows for each page.
    query = "SELECT rowid, * FROM sessions WHERE rowid > ? AND +prefix = ? ORDER BY rowid LIMIT ?"
    rows = db.execute(query, (after, prefix, size)).fetchall()
    records = [record for record in _records(row[1:] for row in rows) if record.expires_ms > now_ms]
    return records, rows[-1][0] if rows else None


def _find(db: sqlite3.Connection, prefix: str, handle: Handle) -> Stored | Tombstone | None:
    query = "SELECT * FROM sessions WHERE prefix = ? AND handle = ?"
    return parsed(db.execute(query, (prefix, handle)).fetchone())


def _records(rows: Iterable[Any]) -> list[Record]:
    return [found.record for row in rows if isinstance(found := parsed(row), Stored)]


def _announce(db: sqlite3.Connection, prefix: str, handle: Handle, now_ms: int) -> None:
    """Add *handle* to those that `gone` yields, and remove some that have had their time."""
    db.execute("INSERT INTO ended (prefix, handle, ended_ms) VALUES (?, ?, ?)", (prefix, handle, now_ms))
    db.execute(
        "DELETE FROM ended WHERE number < (SELECT min(number) FROM ended) + ? AND ended_ms <= ?",
        (REMOVED_PER_CALL, now_ms - TOMBSTONE_MS),
    )


def _remove_old(db: sqlite3.Connection, prefix: str, now_ms: int) -> None:
    db.execute(
        "DELETE FROM sessions WHERE rowid IN (SELECT rowid FROM sessions WHERE prefix = ? "
        "AND coalesce(ended_ms, expires_ms) <= ? ORDER BY coalesce(ended_ms, expires_ms) LIMIT ?)",
        (prefix, now_ms - TOMBSTONE_MS, REMOVED_PER_CALL),
    )

"""Tallies in the file of the SQLite store."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from stormcellar.stores.counters import Counters, Rule, Tally, check_key
from stormcellar.stores.sqlite.worker import Worker

REMOVED_PER_CALL = 8
"""More than the one row that a call can add, so that old ones do not accumulate."""


@dataclass(frozen=True, slots=True)
class _Stored:
    count: int
    next_ms: int
    expires_ms: int


_NONE = _Stored(0, 0, 0)


class SQLiteCounters(Counters):
    """Keeps each tally in one row of the table `tallies`. Each call is part of one transaction.

    ::

        take       SELECT; DELETE some that have ended; INSERT ... ON CONFLICT DO UPDATE
        peek       SELECT
        give_back  SELECT; UPDATE, at 0 DELETE
        forget     DELETE
    """

    def __init__(self, writer: Worker, reader: Worker, prefix: str) -> None:
        self._writer = writer
        self._reader = reader
        self._prefix = prefix

    async def take(self, key: str, rule: Rule, *, now_ms: int) -> Tally:
        """Take one, unless the limit is reached and the wait is not over; see `Counters.take`."""
        check_key(key)
        return await self._writer.run("take", lambda db: _take(db, self._prefix, key, rule, now_ms))

    async def peek(self, key: str, *, now_ms: int) -> Tally:
        """Return the tally without taking one; see `Counters.peek`."""
        check_key(key)
        stored = await self._reader.run("peek", lambda db: _find(db, self._prefix, key, now_ms))
        return Tally(False, stored.count, stored.next_ms)

    async def give_back(self, key: str, tally: Tally, *, now_ms: int) -> None:
        """Undo the take that returned *tally*; see `Counters.give_back`."""
        check_key(key)
        await self._writer.run("give_back", lambda db: _give_back(db, self._prefix, key, tally, now_ms))

    async def forget(self, key: str) -> None:
        """Remove the tally; see `Counters.forget`."""
        check_key(key)
        await self._writer.run("forget", lambda db: _forget(db, self._prefix, key))


def _find(db: sqlite3.Connection, prefix: str, key: str, now_ms: int) -> _Stored:
    query = "SELECT count, next_ms, expires_ms FROM tallies WHERE prefix = ? AND key = ?"
    row = db.execute(query, (prefix, key)).fetchone()
    # SQLite enforces no types of columns, and somebody may have edited the file.
    if row is None or not all(isinstance(value, int) for value in row):
        return _NONE
    stored = _Stored(*row)
    return stored if stored.expires_ms > now_ms else _NONE


def _take(db: sqlite3.Connection, prefix: str, key: str, rule: Rule, now_ms: int) -> Tally:
    stored = _find(db, prefix, key, now_ms)
    count, next_ms = stored.count, stored.next_ms
    if count >= rule.limit and now_ms < next_ms:
        return Tally(False, count, next_ms)
    count += 1
    is_limited = count >= rule.limit
    if is_limited:
        next_ms = now_ms + rule.wait_ms(count)
    db.execute(
        "DELETE FROM tallies WHERE rowid IN (SELECT rowid FROM tallies WHERE prefix = ? AND expires_ms <= ? "
        "ORDER BY expires_ms LIMIT ?)",
        (prefix, now_ms, REMOVED_PER_CALL),
    )
    db.execute(
        "INSERT INTO tallies VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
        "SET count = excluded.count, next_ms = excluded.next_ms, expires_ms = excluded.expires_ms",
        (prefix, key, count, next_ms, now_ms + rule.keep_ms),
    )
    return Tally(True, count, next_ms if is_limited else 0)


def _give_back(db: sqlite3.Connection, prefix: str, key: str, tally: Tally, now_ms: int) -> None:
    stored = _find(db, prefix, key, now_ms)
    if stored.count <= 1:
        _forget(db, prefix, key)
        return
    next_ms = 0 if stored.next_ms == tally.next_ms else stored.next_ms
    db.execute(
        "UPDATE tallies SET count = ?, next_ms = ? WHERE prefix = ? AND key = ?",
        (stored.count - 1, next_ms, prefix, key),
    )


def _forget(db: sqlite3.Connection, prefix: str, key: str) -> None:
    db.execute("DELETE FROM tallies WHERE prefix = ? AND key = ?", (prefix, key))

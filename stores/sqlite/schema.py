"""The tables of the file, and what makes a file one of ours."""

from __future__ import annotations

import sqlite3
import time

from stormcellar.stores.errors import StoreRefused
from stormcellar.stores.sqlite.errors import FOREIGN, NEWER, NO_WAL, code_of

APPLICATION_ID = 0x53746D43
"""Four bytes in the head of the file, "StmC": whose file it is. SQLite keeps them for this purpose."""

VERSION = 1

TABLES = """
CREATE TABLE sessions (
    prefix TEXT NOT NULL,
    handle TEXT NOT NULL,
    verifier TEXT,
    user TEXT,
    created_ms INTEGER,
    rotated_ms INTEGER,
    auth_ms INTEGER,
    seen_ms INTEGER,
    expires_ms INTEGER,
    deadline_ms INTEGER,
    client BLOB,
    data BLOB,
    previous TEXT,
    grace_until_ms INTEGER,
    ended_ms INTEGER,
    PRIMARY KEY (prefix, handle)
);
CREATE VIEW sessions_without_data AS SELECT
    prefix, handle, verifier, user, created_ms, rotated_ms, auth_ms, seen_ms, expires_ms, deadline_ms,
    client, x'80' AS data, previous, grace_until_ms, ended_ms FROM sessions;
CREATE INDEX sessions_by_user ON sessions (prefix, user) WHERE user IS NOT NULL;
CREATE INDEX sessions_by_end ON sessions (prefix, coalesce(ended_ms, expires_ms));
CREATE TABLE tallies (
    prefix TEXT NOT NULL,
    key TEXT NOT NULL,
    count INTEGER NOT NULL,
    next_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    PRIMARY KEY (prefix, key)
);
CREATE INDEX tallies_by_end ON tallies (prefix, expires_ms);
CREATE TABLE ended (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    prefix TEXT NOT NULL,
    handle TEXT NOT NULL,
    ended_ms INTEGER NOT NULL
);
"""
"""A session is one row. That of a record has no `ended_ms`; that of a tombstone has no other value than that,
its prefix and its handle. `previous` is the verifier before the last rotation, if that had a grace. `data` is
a MessagePack map from text to binary; `80` is an empty one.

`ended` has the handles to announce, numbered without gaps, for ten minutes.
"""

RETRY_S = 0.01


def prepare(db: sqlite3.Connection, *, until_s: float) -> None:
    """Create the tables in an empty file, and refuse a file that is not ours.

    Args:
        until_s: When to stop waiting for other programs, by `time.monotonic`.

    Raises:
        StoreRefused: The file is of another program or of a newer version, or its file system is unsuitable.
    """
    if _is_ours(db):
        return
    _use_log(db, until_s)
    db.execute("BEGIN IMMEDIATE")
    if not _is_ours(db):  # unless another process was faster
        for statement in TABLES.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def _is_ours(db: sqlite3.Connection) -> bool:
    """Return whether the tables are there; False for an empty file, and StoreRefused for any other."""
    # The owner last: another process may create all three now, in one transaction.
    has_tables = db.execute("SELECT 1 FROM sqlite_master").fetchone() is not None
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (owner,) = db.execute("PRAGMA application_id").fetchone()
    if owner == APPLICATION_ID:
        if version > VERSION:
            raise StoreRefused("open", NEWER)
        return True
    if owner or version or has_tables:
        raise StoreRefused("open", FOREIGN)
    return False


def _use_log(db: sqlite3.Connection, until_s: float) -> None:
    """Switch the file to a write-ahead log, in which readers and the writer do not wait for each other."""
    while True:
        try:
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as exc:
            # SQLite does not wait here itself while another process does the same.
            if code_of(exc) != "SQLITE_BUSY" or time.monotonic() >= until_s:
                raise
            time.sleep(RETRY_S)
    if mode != "wal":
        raise StoreRefused("open", NO_WAL)

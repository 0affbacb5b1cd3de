"""Create very many sessions quickly: records of one shape, and the cookies of any of them.

Session *n* has the handle *n*, in 22 digits, and the user *n*. All sessions have the same secret, so their
records differ in little more than the key and can be copied inside the database.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

from benchmarks.harness.databases import Database, MongoDatabase, RedisDatabase
from benchmarks.harness.loop import run
from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.signing import KeyRing
from stormcellar.stores import Handle, Record, Store, open_store

PREFIX = "bench"
DATA = {"name": "somebody", "pad": "x" * 270}
_SECRET = "s" * 43
_HOUR_MS = 3_600_000
_CONCURRENT_CALLS = 64
_BATCH = 5_000

# KEYS[1]: the key of the record to copy; its name contains the handle.
# ARGV[1]: that handle. ARGV[2], ARGV[3]: the first and the last number of the copies.
_COPY = """
local from, to = string.find(KEYS[1], ARGV[1], 1, true)
local before, after = string.sub(KEYS[1], 1, from - 1), string.sub(KEYS[1], to + 1)
local dump, expires = redis.call('DUMP', KEYS[1]), redis.call('PEXPIRETIME', KEYS[1])
for n = ARGV[2], ARGV[3] do
  redis.call('RESTORE', before .. string.format('%022d', n) .. after, expires, dump, 'ABSTTL')
end
"""


def make_record(number: int, *, now_ms: int) -> Record:
    """Return the record of session *number*; a read in the next hour does not touch it."""
    later_ms = now_ms + _HOUR_MS
    return Record(
        *_sid(number).credential,
        user=f"user{number}",
        created_ms=now_ms,
        rotated_ms=now_ms,
        auth_ms=now_ms,
        seen_ms=later_ms,
        expires_ms=later_ms + _HOUR_MS,
        deadline_ms=later_ms + 10 * _HOUR_MS,
        data={key: json.dumps(value).encode() for key, value in DATA.items()},
    )


def cookie_headers(numbers: Iterable[int], *, key: bytes) -> list[str]:
    """Return the Cookie headers of the sessions *numbers*, signed with the *key* of the server."""
    keys = KeyRing([key])
    sids = map(_sid, numbers)
    return [f"id={keys.sign('id', f'{sid.handle}.{sid.secret}', clock=time.time)}" for sid in sids]


def _sid(number: int) -> SessionId:
    return SessionId(Handle(f"{number:022d}"), _SECRET)


async def create_sessions(store: Store, count: int, *, now_ms: int) -> None:
    """Create the sessions 0 to *count* - 1 in *store*, with one call each."""
    for start in range(0, count, _CONCURRENT_CALLS):
        numbers = range(start, min(count, start + _CONCURRENT_CALLS))
        await asyncio.gather(*(store.create(make_record(n, now_ms=now_ms)) for n in numbers))


def copy_sessions(database: Database, url: str, count: int) -> None:
    """Create the sessions 0 to *count* - 1 in a database: the first by the store, the others as its copies.

    In Redis only the records are copied, without their entries in the lists of each user's sessions.
    """

    async def create_first() -> None:
        store = open_store(url, prefix=PREFIX)
        await store.ping()
        await create_sessions(store, 1, now_ms=int(time.time() * 1000))
        await store.aclose()

    run(create_first())
    handle = _sid(0).handle
    for start in range(1, count, _BATCH):
        _copy(database, handle, start, min(count, start + _BATCH) - 1)


def _copy(database: Database, handle: str, first: int, last: int) -> None:
    if isinstance(database, RedisDatabase):
        client = database.client
        key = next(client.scan_iter(match=f"*{handle}*", count=10_000))
        client.eval(_COPY, 1, key, handle, first, last)
    elif isinstance(database, MongoDatabase):
        sessions = database.client[database.database]
        _copy_documents(sessions, handle, range(first, last + 1))


def _copy_documents(database: Any, handle: str, numbers: Iterable[int]) -> None:
    for name in database.list_collection_names():
        if document := database[name].find_one({"_id": handle}):
            copies = [{**document, "_id": _sid(n).handle, "user": f"user{n}"} for n in numbers]
            database[name].insert_many(copies, ordered=False)

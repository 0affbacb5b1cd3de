"""Very many sessions, quickly: records of one shape, and the cookies of any of them.

Member *n* of the crowd has the handle *n*, in 22 digits, and the user *n*; all have one secret, so that their
records differ in little more than their key and can be copied inside a database.
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
_TOGETHER = 64
_BATCH = 5_000

# The members from ARGV[2] to ARGV[3]: copies of KEYS[1], which has ARGV[1] in its name.
_COPY = """
local from, to = string.find(KEYS[1], ARGV[1], 1, true)
local before, after = string.sub(KEYS[1], 1, from - 1), string.sub(KEYS[1], to + 1)
local dump, expires = redis.call('DUMP', KEYS[1]), redis.call('PEXPIRETIME', KEYS[1])
for n = ARGV[2], ARGV[3] do
  redis.call('RESTORE', before .. string.format('%022d', n) .. after, expires, dump, 'ABSTTL')
end
"""


def record(number: int, *, now_ms: int) -> Record:
    """Return the record of a member, which needs no touch in the next hour."""
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


def cookies(numbers: Iterable[int], *, key: bytes) -> list[str]:
    """Return the Cookie headers of members, signed with the *key* of the subject."""
    keys = KeyRing([key])
    sids = map(_sid, numbers)
    return [f"id={keys.sign('id', f'{sid.handle}.{sid.secret}', clock=time.time)}" for sid in sids]


def _sid(number: int) -> SessionId:
    return SessionId(Handle(f"{number:022d}"), _SECRET)


async def fill(store: Store, count: int, *, now_ms: int) -> None:
    """Put the first *count* members into *store*, one call each."""
    for start in range(0, count, _TOGETHER):
        members = range(start, min(count, start + _TOGETHER))
        await asyncio.gather(*(store.create(record(n, now_ms=now_ms)) for n in members))


def copy(database: Database, url: str, count: int) -> None:
    """Put the first *count* members into a database: one through the store, the others as copies of it.

    In Redis only the records: the entry of each in the list of its user's sessions is left out.
    """

    async def first() -> None:
        store = open_store(url, prefix=PREFIX)
        await store.ping()
        await fill(store, 1, now_ms=int(time.time() * 1000))
        await store.aclose()

    run(first())
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
            members = [{**document, "_id": _sid(n).handle, "user": f"user{n}"} for n in numbers]
            database[name].insert_many(members, ordered=False)

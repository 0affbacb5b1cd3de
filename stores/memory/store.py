"""Sessions in the memory of this process: for a single process, for tests, and for trying out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import replace
from typing import Self

from stormcellar.stores import changes
from stormcellar.stores.base import Announcing, Scannable
from stormcellar.stores.errors import DuplicateSession, StoreFull
from stormcellar.stores.memory.counters import MemoryCounters
from stormcellar.stores.memory.listeners import Listeners
from stormcellar.stores.memory.listing import Listing
from stormcellar.stores.memory.records import (
    absence,
    data_of,
    listing,
    load,
    pack,
    state,
    unpack,
    with_data,
    with_times,
)
from stormcellar.stores.memory.table import SESSION_BYTES, Entries
from stormcellar.stores.memory.tombstones import Tombstones
from stormcellar.stores.records import (
    DEFAULT_OPTIONS,
    TOMBSTONE_MS,
    Absent,
    Credential,
    Delta,
    Handle,
    Outcome,
    Record,
    Rotation,
    StoreOptions,
    check_record,
    check_user,
)

RECLAIMED_PER_CALL = 8
"""More than the one record a call can add, so expired ones do not accumulate; few enough to be fast."""

SCANNED_PER_PAGE = 100


class MemoryStore(Announcing, Scannable):
    """Keeps sessions in dicts. Not shared, lost at a restart, limited in number and in bytes.

    No operation awaits between its test and its change, so each is atomic on its event loop. Records are
    immutable, and their data is copied in and out.

    An entry is one bytes object; see `stormcellar.stores.memory.records`.

    ==========  =======================================================================================
    create      reclaim; make room; `entries[handle] = pack(record)`; list the handle
    load        reclaim; `load(entries.get(handle), ...)`, which unpacks what is live; without an entry, the
                tombstone
    find        `unpack(entries.get(handle))`
    apply       reclaim; make room; `entries[handle]` replaced with new data, seen and expiry; the handle
                moved in the schedule by expiry and, if anonymous, in the one by seen
    rotate      reclaim; make room; `entries[handle]` replaced; the handle unlisted with its old values and
                listed with its new ones
    destroy     `entries.pop(handle)`; unlist the handle; add a tombstone
    of_user     `users.of(user)`, then `entries[handle]` of each
    states      `entries.get(handle)` of each; without an entry, the tombstone
    gone        one queue for each listener, filled by destroy and rotate
    scan        for each part of the table: copy its handles, then `entries.get(handle)` of each; yield to
                the event loop every 100
    ==========  =======================================================================================

    *List* adds the handle to the schedule by expiry and, if anonymous, to the one by seen, else to the index
    of its user; *unlist* removes it there.

    *Reclaim* removes at most `RECLAIMED_PER_CALL` records that expired `TOMBSTONE_MS` ago, the earliest
    first. *Make room* runs if a write would exceed a limit: until it fits, it removes expired records, and
    then ends the least recently seen anonymous sessions; if all others have a user, it raises StoreFull.
    `gone` announces neither. Both use a `Schedule`: if more than 32 sessions fall into one of its 16 s spans,
    the earliest may be any of those. `len` and the limits do not count tombstones.

    Args:
        max_sessions: The largest number of records, at least 1.
        max_memory: The bytes that all records may take, at least 1: `Entries.size_bytes`.
    """

    shared = False

    def __init__(
        self,
        *,
        max_sessions: int = DEFAULT_OPTIONS.max_sessions,
        max_memory: int = DEFAULT_OPTIONS.max_memory,
    ) -> None:
        for name, limit in (("max_sessions", max_sessions), ("max_memory", max_memory)):
            if limit < 1:
                raise ValueError(f"{name} must be at least 1, not {limit}")
        self.max_sessions = max_sessions
        self.max_memory = max_memory
        self._entries = Entries()
        self._listing = Listing(self._entries)
        self._by_expiry = self._listing.by_expiry
        self._listeners = Listeners()
        self._counters = MemoryCounters()
        self._tombstones = Tombstones()

    @classmethod
    def from_url(cls, url: str, options: StoreOptions) -> Self:
        """Make a store for the URL `memory:` or `memory://`."""
        if url not in ("memory:", "memory://"):
            raise ValueError("the memory store takes no address: its URL is 'memory:'")
        return cls(max_sessions=options.max_sessions, max_memory=options.max_memory)

    def __len__(self) -> int:
        return len(self._entries)

    def __bool__(self) -> bool:
        """Return True: an empty store is still a store."""
        return True

    async def create(self, record: Record) -> None:
        """Insert *record*. Its `seen_ms` is the current time for expiring other records.

        Raises:
            DuplicateSession: The handle exists.
            StoreFull: A limit is reached, every record has a user, and none expired more than 16 s ago.
        """
        check_record(record)
        if self._entries.get(record.handle) is not None or record.handle in self._tombstones:
            raise DuplicateSession(record.handle)
        packed = pack(record)
        self._reclaim(record.seen_ms)
        self._make_room(SESSION_BYTES + len(packed), record.seen_ms)
        self._entries.add(record.handle, packed)
        self._listing.add(record)

    async def load(self, credential: Credential, *, now_ms: int) -> Record | Absent:
        """Return a copy of the live record, with the verifier presented."""
        if now_ms - TOMBSTONE_MS >= self._by_expiry.due_ms:
            self._reclaim(now_ms)
        handle, verifier = credential
        packed = self._entries.get(handle)
        return (
            self._tombstones.absent(handle, now_ms)
            if packed is None
            else load(packed, handle, verifier, now_ms)
        )

    async def find(self, handle: Handle, *, now_ms: int) -> Record | None:
        """Return a copy of the live record, with its current verifier."""
        packed = self._entries.get(handle)
        if packed is None or (record := unpack(packed, handle)).expires_ms <= now_ms:
            return None
        return record

    async def apply(
        self, credential: Credential, delta: Delta, *, now_ms: int, expires_ms: int | None
    ) -> Outcome:
        """Write *delta* if the session is live and every `expect` holds, and slide the expiry."""
        self._reclaim(now_ms)
        handle, packed = credential.handle, self._live(credential, now_ms)
        if packed is None:
            return Outcome.GONE
        new = packed
        if delta.put or delta.drop or delta.expect:
            data = data_of(packed)
            if not changes.holds(delta.expect, data):
                return Outcome.CONFLICT
            new = with_data(packed, changes.written(data, delta))
        if expires_ms is not None:
            _, seen_ms, old_expires_ms = listing(packed)
            new = with_times(new, seen_ms=max(seen_ms, now_ms), expires_ms=max(old_expires_ms, expires_ms))
        self._make_room(len(new) - len(packed), now_ms, handle)
        self._listing.move(handle, packed, new)
        self._entries.replace(handle, new)
        return Outcome.APPLIED

    async def rotate(self, credential: Credential, rotation: Rotation, *, now_ms: int) -> Outcome:
        """Replace the verifier, and with it everything that changes at sign-in, in one step."""
        self._reclaim(now_ms)
        packed = self._live(credential, now_ms)
        if packed is None:
            return Outcome.GONE
        record = unpack(packed, credential.handle)
        has_grace = rotation.grace_ms > 0
        is_refused = has_grace and credential.verifier != record.verifier
        if is_refused or not changes.holds(rotation.delta.expect, record.data):
            return Outcome.CONFLICT
        rotated = changes.rotated(record, rotation)
        if has_grace:
            end_ms = rotation.rotated_ms + rotation.grace_ms
            new = pack(rotated, previous=record.verifier, grace_until_ms=end_ms)
        else:
            new = pack(rotated)
        self._make_room(len(new) - len(packed), now_ms, record.handle)
        self._listing.discard(record.handle, packed)
        self._entries.replace(record.handle, new)
        self._listing.add(rotated)
        if not has_grace:
            self._listeners.announce(record.handle)
        return Outcome.APPLIED

    async def destroy(self, handle: Handle, *, now_ms: int) -> bool:
        """Replace the record by a tombstone, whatever its verifier, and return whether there was one."""
        if self._entries.get(handle) is None:
            return False
        self._remove(handle)
        self._tombstones.add(handle, now_ms)
        self._listeners.announce(handle)
        return True

    async def of_user(self, user: str, *, now_ms: int) -> list[Record]:
        """Return every live session of *user*, `data` left empty."""
        check_user(user)
        records = [unpack(self._entries[handle], handle) for handle in self._listing.users.of(user)]
        return [replace(record, data={}) for record in records if record.expires_ms > now_ms]

    async def states(
        self, credentials: Iterable[Credential], *, now_ms: int
    ) -> dict[Credential, Record | Absent]:
        """Return what has become of the session of each of *credentials*."""
        found: dict[Credential, Record | Absent] = {}
        for each in credentials:
            packed = self._entries.get(each.handle)
            found[each] = (
                state(packed, each, now_ms) if packed else self._tombstones.absent(each.handle, now_ms)
            )
        return found

    def gone(self) -> AsyncGenerator[Handle | None, None]:
        """Yield None, then the handle of each destroy and of each rotation without grace."""
        return self._listeners.handles()

    async def scan(self, *, now_ms: int) -> AsyncIterator[Record]:
        """Yield the live records with their data. The handles are copied one part of the table at a time."""
        count = 0
        for page in self._entries.pages():
            for handle in page:
                packed = self._entries.get(handle)
                if packed is not None and (record := unpack(packed, Handle(handle))).expires_ms > now_ms:
                    yield record
                count += 1
                if count % SCANNED_PER_PAGE == 0:
                    await asyncio.sleep(0)

    def counters(self) -> MemoryCounters:
        """Return the tallies of this process."""
        return self._counters

    async def ping(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def aclose(self) -> None:
        """End every `gone` iterator. Idempotent."""
        self._listeners.close()

    def _live(self, credential: Credential, now_ms: int) -> bytes | None:
        """Return the entry that is live for *credential*, or None."""
        packed = self._entries.get(credential.handle)
        return None if packed is None or absence(packed, credential.verifier, now_ms) else packed

    def _remove(self, handle: Handle) -> None:
        self._listing.discard(handle, self._entries.pop(handle))

    def _reclaim(self, now_ms: int) -> None:
        self._tombstones.reclaim(now_ms)
        until_ms = now_ms - TOMBSTONE_MS
        if until_ms >= self._by_expiry.due_ms:
            for handle in self._by_expiry.first(RECLAIMED_PER_CALL, until_ms=until_ms):
                self._remove(handle)

    def _make_room(self, size_bytes: int, now_ms: int, writing: Handle | None = None) -> None:
        """Remove records until that of *writing*, or a new one, can grow by *size_bytes*."""
        if size_bytes <= 0:
            return
        entries, most = self._entries, self.max_sessions - (writing is None)
        while len(entries) > most or entries.size_bytes + size_bytes > self.max_memory:
            expired = self._by_expiry.first(1, until_ms=now_ms)
            removable = expired or [h for h in self._listing.anonymous_by_seen.first(2) if h != writing]
            if not removable:
                raise StoreFull(f"memory store: no room, and all {len(entries)} sessions are signed in")
            self._remove(removable[0])

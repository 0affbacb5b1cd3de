"""Sessions in this process: for one process, for tests, and for a first look. A restart ends them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from stores.base import (
    Absent,
    Credential,
    Delta,
    Handle,
    Outcome,
    Record,
    Store,
    StoreOptions,
    Verifier,
    check_keys,
    check_user,
)
from stores.errors import DuplicateSession, StoreFull
from stores.memory_counters import MemoryCounters
from stores.memory_schedule import Schedule

RECLAIMED_PER_CALL = 8
"""More than the one record a call can add, so that the dead never pile up, and few enough not to be felt."""

WAITING_PER_LISTENER = 10_000
"""Announcements kept for a listener that does not read; later ones are lost to it, as `gone` allows."""

SCANNED_PER_PAGE = 100


@dataclass(frozen=True, slots=True)
class _Entry:
    """A stored record with the verifier that its last rotation replaced, if that one has a grace."""

    record: Record
    previous: Verifier | None = None
    grace_until_ms: int = 0

    def accepts(self, verifier: Verifier, now_ms: int) -> bool:
        if verifier == self.record.verifier:
            return True
        return verifier == self.previous and now_ms < self.grace_until_ms


class MemoryStore(Store):
    """Keeps sessions in dicts. Not shared, not durable, bounded.

    No operation awaits between its test and its change, so each is atomic on its event loop. Records are
    immutable and their data is copied in and out.

    ==========  =======================================================================================
    create      reclaim; make room; `entries[handle] = entry`
    load        reclaim; `entries.get(handle)`
    apply       reclaim; `entries[handle] = entry` with new data, seen and expiry
    rotate      reclaim; `entries[handle] = entry`; move the handle from `users[old]` to `users[new]`
    destroy     `entries.pop(handle)`; take the handle out of `users[user]` and both schedules
    of_user     `users.get(user)`, then `entries[handle]` of each
    alive       `entries.get(handle)` of each
    gone        one queue for each listener, filled by destroy and rotate
    scan        the handles copied, then `entries.get(handle)` of each, the loop let go every 100
    ==========  =======================================================================================

    *Reclaim* removes at most `RECLAIMED_PER_CALL` expired records, the earliest first. *Make room* follows
    when *max_sessions* are left, so none of them expired: it ends the least recently seen anonymous one, and
    raises StoreFull when every session has a user. Neither is announced by `gone`.

    Args:
        max_sessions: How many records it holds at most, at least 1.
    """

    shared = False

    def __init__(self, *, max_sessions: int = 100_000) -> None:
        if max_sessions < 1:
            raise ValueError(f"max_sessions must be at least 1, not {max_sessions}")
        self.max_sessions = max_sessions
        self._entries: dict[Handle, _Entry] = {}
        self._users: dict[str, set[Handle]] = {}
        self._by_expiry = Schedule()
        self._anonymous_by_seen = Schedule()
        self._listeners: set[asyncio.Queue[Handle | None]] = set()
        self._counters = MemoryCounters()
        self._is_closed = False

    @classmethod
    def from_url(cls, url: str, options: StoreOptions) -> Self:
        """Make a store for the one URL there is, `memory:`."""
        if url != "memory:":
            raise ValueError("the memory store takes no address: 'memory:' is all of its URL")
        return cls(max_sessions=options.max_sessions)

    def __len__(self) -> int:
        return len(self._entries)

    def __bool__(self) -> bool:
        """Return True: an empty store is still a store."""
        return True

    async def create(self, record: Record) -> None:
        """Insert *record*; its `seen_ms` is the time by which others have expired.

        Raises:
            DuplicateSession: The handle exists.
            StoreFull: Every one of *max_sessions* records is live and has a user.
        """
        check_keys(record.data)
        check_user(record.user)
        if record.handle in self._entries:
            raise DuplicateSession(record.handle)
        self._reclaim(record.seen_ms)
        if len(self._entries) >= self.max_sessions:
            self._make_room()
        self._keep(_Entry(replace(record, data=dict(record.data))))

    async def load(self, credential: Credential, *, now_ms: int) -> Record | Absent:
        """Return a copy of the live record, under the verifier presented."""
        self._reclaim(now_ms)
        entry = self._find(credential, now_ms)
        if isinstance(entry, Absent):
            return entry
        return replace(entry.record, verifier=credential.verifier, data=dict(entry.record.data))

    async def apply(
        self, credential: Credential, delta: Delta, *, now_ms: int, expires_ms: int | None
    ) -> Outcome:
        """Write *delta* if the session is live and every `expect` holds, and slide the expiry."""
        self._reclaim(now_ms)
        entry = self._find(credential, now_ms)
        if isinstance(entry, Absent):
            return Outcome.GONE
        record = entry.record
        if not _holds(delta.expect, record.data):
            return Outcome.CONFLICT
        record = replace(record, data=_written(record.data, delta))
        if expires_ms is not None:
            seen_ms, expires_ms = max(record.seen_ms, now_ms), max(record.expires_ms, expires_ms)
            record = replace(record, seen_ms=seen_ms, expires_ms=expires_ms)
        self._keep(replace(entry, record=record))
        return Outcome.APPLIED

    async def rotate(
        self,
        credential: Credential,
        new_verifier: Verifier,
        delta: Delta,
        *,
        keep: frozenset[str] | None,
        user: str | None,
        auth_ms: int | None,
        client: bytes,
        now_ms: int,
        expires_ms: int,
        deadline_ms: int,
        grace_ms: int = 0,
    ) -> Outcome:
        """Replace the verifier, and with it everything that changes at sign-in, in one step."""
        check_user(user)
        self._reclaim(now_ms)
        entry = self._find(credential, now_ms)
        if isinstance(entry, Absent):
            return Outcome.GONE
        record = entry.record
        if credential.verifier != record.verifier or not _holds(delta.expect, record.data):
            return Outcome.CONFLICT
        kept = {key: value for key, value in record.data.items() if keep is None or key in keep}
        rotated = replace(
            record,
            verifier=new_verifier,
            user=user,
            rotated_ms=now_ms,
            auth_ms=auth_ms,
            seen_ms=max(record.seen_ms, now_ms),
            expires_ms=expires_ms,
            deadline_ms=deadline_ms,
            client=client,
            data=_written(kept, delta),
        )
        if grace_ms > 0:
            self._keep(_Entry(rotated, record.verifier, now_ms + grace_ms))
        else:
            self._keep(_Entry(rotated))
            self._announce(record.handle)
        return Outcome.APPLIED

    async def destroy(self, handle: Handle) -> bool:
        """Remove the record whatever its verifier, and say whether there was one."""
        if handle not in self._entries:
            return False
        self._remove(handle)
        self._announce(handle)
        return True

    async def of_user(self, user: str, *, now_ms: int) -> list[Record]:
        """Return every live session of *user*, `data` left empty."""
        check_user(user)
        records = [self._entries[handle].record for handle in self._users.get(user, ())]
        return [replace(record, data={}) for record in records if record.expires_ms > now_ms]

    async def alive(self, credentials: Iterable[Credential], *, now_ms: int) -> set[Credential]:
        """Return which of *credentials* are live."""
        return {each for each in credentials if not isinstance(self._find(each, now_ms), Absent)}

    async def gone(self) -> AsyncGenerator[Handle, None]:
        """Yield the handle of each destroy, and of each rotation without grace, from the first `anext` on."""
        if self._is_closed:
            return
        waiting: asyncio.Queue[Handle | None] = asyncio.Queue()
        self._listeners.add(waiting)
        try:
            while (handle := await waiting.get()) is not None:
                yield handle
        finally:
            self._listeners.discard(waiting)

    async def scan(self, *, now_ms: int) -> AsyncIterator[Record]:
        """Yield the live records with their data; the handles are those of the first `anext`."""
        for count, handle in enumerate(list(self._entries), start=1):
            entry = self._entries.get(handle)
            if entry is not None and entry.record.expires_ms > now_ms:
                yield replace(entry.record, data=dict(entry.record.data))
            if count % SCANNED_PER_PAGE == 0:
                await asyncio.sleep(0)

    def counters(self) -> MemoryCounters:
        """Return the tallies of this process."""
        return self._counters

    async def ping(self) -> None:
        """Return at once: there is nothing to connect to."""

    async def aclose(self) -> None:
        """End every `gone` iterator. Idempotent."""
        self._is_closed = True
        for waiting in self._listeners:
            waiting.put_nowait(None)

    def _find(self, credential: Credential, now_ms: int) -> _Entry | Absent:
        entry = self._entries.get(credential.handle)
        if entry is None or entry.record.expires_ms <= now_ms:
            return Absent.ENDED
        return entry if entry.accepts(credential.verifier, now_ms) else Absent.SUPERSEDED

    def _keep(self, entry: _Entry) -> None:
        """Store *entry* in place of the one with its handle, and bring the index and schedules up to date."""
        record = entry.record
        old = self._entries.get(record.handle)
        if old is not None and old.record.user != record.user:
            self._unindex(old.record)
        self._entries[record.handle] = entry
        self._by_expiry.put(record.handle, record.expires_ms)
        if record.user is None:
            self._anonymous_by_seen.put(record.handle, record.seen_ms)
        else:
            self._users.setdefault(record.user, set()).add(record.handle)

    def _remove(self, handle: Handle) -> None:
        self._unindex(self._entries.pop(handle).record)
        self._by_expiry.discard(handle)

    def _unindex(self, record: Record) -> None:
        if record.user is None:
            self._anonymous_by_seen.discard(record.handle)
            return
        handles = self._users[record.user]
        handles.discard(record.handle)
        if not handles:
            del self._users[record.user]

    def _reclaim(self, now_ms: int) -> None:
        for _ in range(RECLAIMED_PER_CALL):
            first = self._by_expiry.first()
            if first is None or first[0] > now_ms:
                return
            self._remove(first[1])

    def _make_room(self) -> None:
        first = self._anonymous_by_seen.first()
        if first is None:
            raise StoreFull(f"all {self.max_sessions} sessions of the memory store are signed in")
        self._remove(first[1])

    def _announce(self, handle: Handle) -> None:
        for waiting in self._listeners:
            if waiting.qsize() < WAITING_PER_LISTENER:
                waiting.put_nowait(handle)


def _holds(expect: Mapping[str, bytes | None], data: Mapping[str, bytes]) -> bool:
    return all(data.get(key) == value for key, value in expect.items())


def _written(data: Mapping[str, bytes], delta: Delta) -> dict[str, bytes]:
    return {key: value for key, value in {**data, **delta.put}.items() if key not in delta.drop}

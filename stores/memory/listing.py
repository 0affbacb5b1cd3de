"""Where the handles of the memory store are listed: by expiry, by last activity, by user."""

from __future__ import annotations

from stormcellar.stores.memory.records import listing
from stormcellar.stores.memory.schedule import Schedule
from stormcellar.stores.memory.table import Entries, UserIndex
from stormcellar.stores.records import Handle, Record


class Listing:
    """All handles by expiry; those of visitors by last activity, those of users by user.

    Args:
        entries: Where to read the times of a handle. It is listed with those that its entry has.
    """

    def __init__(self, entries: Entries) -> None:
        self.by_expiry = Schedule(lambda handle: listing(entries[handle])[2])
        self.anonymous_by_seen = Schedule(lambda handle: listing(entries[handle])[1])
        self.users = UserIndex()

    def add(self, record: Record) -> None:
        """Add the handle of *record*."""
        self.by_expiry.put(record.handle, record.expires_ms)
        if record.user is None:
            self.anonymous_by_seen.put(record.handle, record.seen_ms)
        else:
            self.users.add(record.user, record.handle)

    def discard(self, handle: Handle, packed: bytes) -> None:
        """Remove *handle*, which is listed with the values in *packed*."""
        user, seen_ms, expires_ms = listing(packed)
        self.by_expiry.discard(handle, expires_ms)
        if user is None:
            self.anonymous_by_seen.discard(handle, seen_ms)
        else:
            self.users.discard(user, handle)

    def move(self, handle: Handle, packed: bytes, new: bytes) -> None:
        """Move *handle* from the times in *packed* to those in *new*."""
        user, old_seen_ms, old_expires_ms = listing(packed)
        _, seen_ms, expires_ms = listing(new)
        self.by_expiry.move(handle, old_expires_ms, expires_ms)
        if user is None:
            self.anonymous_by_seen.move(handle, old_seen_ms, seen_ms)

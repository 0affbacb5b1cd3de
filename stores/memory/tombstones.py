"""The tombstones of the memory store, which take no room from sessions."""

from __future__ import annotations

from collections import OrderedDict

from stormcellar.stores.records import TOMBSTONE_MS, Absent, Handle, Why

MOST = 10_000
"""How many tombstones are kept: some 2 MB. The oldest goes first."""

RECLAIMED_PER_CALL = 8
"""More than the one tombstone that a call can add, so old ones do not accumulate."""


class Tombstones:
    """When each session destroyed lately was destroyed, in the order of the calls."""

    def __init__(self) -> None:
        self._ended: OrderedDict[Handle, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ended)

    def __contains__(self, handle: Handle) -> bool:
        return handle in self._ended

    def add(self, handle: Handle, now_ms: int) -> None:
        """Add a tombstone, in place of the oldest if there are too many."""
        self._ended[handle] = now_ms
        if len(self._ended) > MOST:
            self._ended.popitem(last=False)
        self.reclaim(now_ms)

    def reclaim(self, now_ms: int) -> None:
        """Remove the oldest tombstones that have had their time, a few at most."""
        for _ in range(RECLAIMED_PER_CALL):
            if not self._ended or next(iter(self._ended.values())) + TOMBSTONE_MS > now_ms:
                return
            self._ended.popitem(last=False)

    def absent(self, handle: Handle, now_ms: int) -> Absent:
        """Return why *handle*, which has no record, has none."""
        ended_ms = self._ended.get(handle)
        if ended_ms is None or ended_ms + TOMBSTONE_MS <= now_ms:
            return Absent(Why.UNKNOWN)
        return Absent(Why.ENDED, ended_ms)

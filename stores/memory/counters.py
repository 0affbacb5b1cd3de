"""Tallies in the memory of this process, for the memory store. A restart loses them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from stormcellar.stores.counters import Counters, Rule, Tally, check_key

MAX_TALLIES = 100_000
"""About 40 MB at most."""

RECLAIMED_PER_CALL = 8
"""More than the one tally a call can add, so expired ones do not accumulate."""


@dataclass(frozen=True, slots=True)
class _Stored:
    count: int
    next_ms: int
    expires_ms: int


_NONE = _Stored(0, 0, 0)


class MemoryCounters(Counters):
    """Keeps tallies in two dicts, ordered by their last change: those with a wait, and those without.

    No call awaits, so each is atomic on its event loop. When *max_tallies* are stored, the least recently
    changed tally without a wait is removed first. So an attacker who invents keys removes only tallies of
    that kind: to remove one delay takes as many keys as there is room for, each brought to its own limit.
    """

    def __init__(self, *, max_tallies: int = MAX_TALLIES) -> None:
        self._max_tallies = max_tallies
        self._free: OrderedDict[str, _Stored] = OrderedDict()
        self._waiting: OrderedDict[str, _Stored] = OrderedDict()

    def __len__(self) -> int:
        return len(self._free) + len(self._waiting)

    def __bool__(self) -> bool:
        """Return True: counters without a tally are still counters."""
        return True

    async def take(self, key: str, rule: Rule, *, now_ms: int) -> Tally:
        """Take one, unless the limit is reached and the wait is not over."""
        check_key(key)
        stored = self._find(key, now_ms)
        count, next_ms = stored.count, stored.next_ms
        if count >= rule.limit and now_ms < next_ms:
            return Tally(False, count, next_ms)
        count += 1
        is_limited = count >= rule.limit
        if is_limited:
            next_ms = now_ms + rule.wait_ms(count)
        self._reclaim(now_ms)
        self._keep(key, _Stored(count, next_ms, now_ms + rule.keep_ms), is_waiting=next_ms > now_ms)
        return Tally(True, count, next_ms if is_limited else 0)

    async def peek(self, key: str, *, now_ms: int) -> Tally:
        """Return the tally without taking one."""
        check_key(key)
        stored = self._find(key, now_ms)
        return Tally(False, stored.count, stored.next_ms)

    async def give_back(self, key: str, tally: Tally, *, now_ms: int) -> None:
        """Undo the take that returned *tally*."""
        check_key(key)
        stored = self._find(key, now_ms)
        if stored.count <= 1:
            await self.forget(key)
            return
        next_ms = 0 if stored.next_ms == tally.next_ms else stored.next_ms
        self._keep(key, replace(stored, count=stored.count - 1, next_ms=next_ms), is_waiting=next_ms > now_ms)

    async def forget(self, key: str) -> None:
        """Remove the tally."""
        check_key(key)
        self._free.pop(key, None)
        self._waiting.pop(key, None)

    def _find(self, key: str, now_ms: int) -> _Stored:
        stored = self._free.get(key) or self._waiting.get(key) or _NONE
        return stored if stored.expires_ms > now_ms else _NONE

    def _keep(self, key: str, stored: _Stored, *, is_waiting: bool) -> None:
        self._free.pop(key, None)
        self._waiting.pop(key, None)
        if len(self) >= self._max_tallies:
            (self._free or self._waiting).popitem(last=False)
        (self._waiting if is_waiting else self._free)[key] = stored

    def _reclaim(self, now_ms: int) -> None:
        for tallies in (self._free, self._waiting):
            for _ in range(RECLAIMED_PER_CALL):
                oldest = next(iter(tallies), None)
                if oldest is None or tallies[oldest].expires_ms > now_ms:
                    break
                del tallies[oldest]

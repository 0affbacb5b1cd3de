"""Handles ordered by time, in buckets: cheap to move and remove, with access to the earliest."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable

from stormcellar.stores.records import Handle

BUCKET_BITS = 14
"""A bucket is 2 ** 14 ms wide, a hundredth of half an hour: of a million sessions it has 9000."""

SORTED_PER_CALL = 32
"""How many handles a call sorts at most, which limits its time."""

NEAR_MAX = 4096
"""How many handles are kept sorted, which limits the time of each insertion."""


class Schedule:
    """Handles, each with a time that *time_of* returns.

    Handles whose time is far away are in dicts, one for each bucket of time: that takes some 20 bytes for
    each, and the garbage collector does not traverse it. When a bucket becomes the earliest, each call sorts
    some of its handles. So `first` is exact, unless a bucket has more handles than a call sorts or than are
    kept sorted: then it returns handles of that bucket, but maybe not its earliest.
    """

    def __init__(self, time_of: Callable[[Handle], int]) -> None:
        self._time_of = time_of
        self._far: dict[int, dict[Handle, None]] = {}
        self._numbers: list[int] = []
        self._near: list[tuple[int, Handle]] = []
        self.due_ms: float = math.inf
        """Before this time `first` returns nothing new."""

    def __len__(self) -> int:
        return len(self._near) + sum(map(len, self._far.values()))

    def put(self, handle: Handle, at_ms: int) -> None:
        """Add *handle*."""
        number = at_ms >> BUCKET_BITS
        bucket = self._far.get(number)
        if bucket is None:
            bucket = self._far[number] = {}
            insort(self._numbers, number)
        bucket[handle] = None
        if at_ms < self.due_ms:
            self.due_ms = at_ms

    def move(self, handle: Handle, old_ms: int, at_ms: int) -> None:
        """Change the time of *handle* from *old_ms* to *at_ms*."""
        number = at_ms >> BUCKET_BITS
        if number != old_ms >> BUCKET_BITS or handle not in self._far.get(number, ()):
            self.discard(handle, old_ms)
            self.put(handle, at_ms)

    def discard(self, handle: Handle, at_ms: int) -> None:
        """Remove *handle*, whose time is *at_ms*."""
        near = self._near
        if near and at_ms <= near[-1][0]:
            place = bisect_left(near, (at_ms, handle))
            if place < len(near) and near[place] == (at_ms, handle):
                del near[place]
                return
        number = at_ms >> BUCKET_BITS
        bucket = self._far[number]
        del bucket[handle]
        if not bucket:
            self._close(number)

    def first(self, most: int, *, until_ms: float = math.inf) -> list[Handle]:
        """Return up to *most* handles, the earliest first, whose time is not after *until_ms*."""
        self._sort(most, until_ms)
        found = [handle for at_ms, handle in self._near[:most] if at_ms <= until_ms]
        if not found:
            self.due_ms = self._earliest_ms()
        return found

    def _sort(self, most: int, until_ms: float) -> None:
        left = SORTED_PER_CALL
        while left and self._numbers and self._numbers[0] << BUCKET_BITS <= until_ms:
            number = self._numbers[0]
            if not self._may_hold_one_of(most, number):
                return
            bucket = self._far[number]
            while bucket and left:
                handle, _ = bucket.popitem()
                insort(self._near, (self._time_of(handle), handle))
                left -= 1
            if not bucket:
                self._close(number)
            while len(self._near) > NEAR_MAX:
                at_ms, handle = self._near.pop()
                self.put(handle, at_ms)

    def _may_hold_one_of(self, most: int, number: int) -> bool:
        """Whether one of the *most* earliest may be in this bucket, and there is room to sort it."""
        near = self._near
        if len(near) < most:
            return True
        if len(near) >= NEAR_MAX and number >= near[-1][0] >> BUCKET_BITS:
            return False
        return number << BUCKET_BITS <= near[most - 1][0]

    def _earliest_ms(self) -> float:
        near_ms = self._near[0][0] if self._near else math.inf
        if not self._numbers or not self._may_hold_one_of(1, self._numbers[0]):
            return near_ms
        return min(near_ms, self._numbers[0] << BUCKET_BITS)

    def _close(self, number: int) -> None:
        del self._far[number]
        del self._numbers[bisect_left(self._numbers, number)]

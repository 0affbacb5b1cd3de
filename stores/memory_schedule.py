"""A queue of handles by time, in which any one can be moved or taken out without a scan."""

from __future__ import annotations

from stores.base import Handle


class Schedule:
    """Handles ordered by a time each; the earliest is known at once, every change costs O(log n).

    A binary heap that remembers where each handle stands. `heapq` does not, so that entries of destroyed
    sessions would stay in it until their time came, without bound.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, Handle]] = []
        self._places: dict[Handle, int] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def first(self) -> tuple[int, Handle] | None:
        """Return the earliest time and its handle, or None when there is none."""
        return self._heap[0] if self._heap else None

    def put(self, handle: Handle, at_ms: int) -> None:
        """Add *handle*, or move it if it is there."""
        item = (at_ms, handle)
        place = self._places.get(handle)
        if place is None:
            place = len(self._heap)
            self._heap.append(item)
        self._settle(item, place)

    def discard(self, handle: Handle) -> None:
        """Take *handle* out if it is there."""
        place = self._places.pop(handle, None)
        if place is None:
            return
        last = self._heap.pop()
        if place < len(self._heap):
            self._settle(last, place)

    def _settle(self, item: tuple[int, Handle], place: int) -> None:
        """Move the hole at *place* up, then down, to where *item* belongs, and fill it."""
        heap = self._heap
        while place and item < heap[(place - 1) // 2]:
            self._fill(place, heap[(place - 1) // 2])
            place = (place - 1) // 2
        while (child := 2 * place + 1) < len(heap):
            if child + 1 < len(heap) and heap[child + 1] < heap[child]:
                child += 1
            if item <= heap[child]:
                break
            self._fill(place, heap[child])
            place = child
        self._fill(place, item)

    def _fill(self, place: int, item: tuple[int, Handle]) -> None:
        self._heap[place] = item
        self._places[item[1]] = place

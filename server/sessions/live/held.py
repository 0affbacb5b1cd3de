"""`Held`: the holders of each session, in parts whose regular checks take turns."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from stormcellar.sessions.live.watched import Watched
from stormcellar.stores import Handle

TURNS = 30
"""The regular checks of one interval are done in so many parts, so that the work is even."""


class Held:
    """The holders by the handle of their session. A handle always belongs to the same turn."""

    def __init__(self) -> None:
        self.turns: tuple[dict[Handle, set[Watched]], ...] = tuple({} for _ in range(TURNS))

    def add(self, watched: Watched) -> None:
        """Add a holder."""
        self._with(watched.record.handle).setdefault(watched.record.handle, set()).add(watched)

    def discard(self, watched: Watched) -> None:
        """Remove a holder. Idempotent."""
        handle = watched.record.handle
        turn = self._with(handle)
        holders = turn.get(handle, set())
        holders.discard(watched)
        if not holders:
            turn.pop(handle, None)

    def of(self, handle: Handle) -> Collection[Watched]:
        """Return the holders of one session."""
        return self._with(handle).get(handle, ())

    def __iter__(self) -> Iterator[Watched]:
        return (watched for turn in self.turns for holders in turn.values() for watched in holders)

    def __len__(self) -> int:
        return sum(len(holders) for turn in self.turns for holders in turn.values())

    def _with(self, handle: Handle) -> dict[Handle, set[Watched]]:
        return self.turns[hash(handle) % TURNS]

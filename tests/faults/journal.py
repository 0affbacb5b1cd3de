"""What the clients of one fault were told, and what turned out to be wrong."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Journal:
    """What happened to all clients. Times are `time.monotonic()` in seconds."""

    answered: int = 0
    """Requests with an answer that is no failure."""
    errors: Counter[str] = field(default_factory=Counter)
    """Failed requests by status, or `no answer`."""
    failed_at: list[float] = field(default_factory=list)
    """When each failure was known."""
    longest_s: float = 0.0
    """The longest time that a request took."""
    lost: list[str] = field(default_factory=list)
    """Acknowledged writes that a later read did not show, or that count twice."""
    back: list[str] = field(default_factory=list)
    """Sessions whose end, or IDs whose rotation, was acknowledged and that were accepted again."""
    signed_out: list[str] = field(default_factory=list)
    """Sessions that ended, although nobody asked for it."""
    somebody_else: list[str] = field(default_factory=list)
    """Answers with another user's name, or with data that this session never wrote."""
    in_doubt: int = 0
    """Sessions that ended after a request to end them, or to rotate their ID, had failed."""

    def record(self, kind: str | None, began: float) -> None:
        """Record the end of a request that began at *began*; *kind* is None unless it failed."""
        now = time.monotonic()
        self.longest_s = max(self.longest_s, now - began)
        if kind is None:
            self.answered += 1
        else:
            self.errors[kind] += 1
            self.failed_at.append(now)

    def last_failure(self, *, default: float) -> float:
        """Return when the last request failed."""
        return max(self.failed_at, default=default)

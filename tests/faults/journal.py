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
    requests: list[tuple[float, float]] = field(default_factory=list)
    """When each request began and ended."""
    pending: dict[object, float] = field(default_factory=dict)
    """When each request began that has not ended."""
    longest_s: float = 0.0
    """The longest time that a request took."""
    lost: list[str] = field(default_factory=list)
    """Acknowledged writes that a later read did not show, or that count twice; each once."""
    back: list[str] = field(default_factory=list)
    """Sessions whose end, or IDs whose rotation, was acknowledged and that were accepted again."""
    signed_out: list[str] = field(default_factory=list)
    """Sessions that ended, although nobody asked for it."""
    somebody_else: list[str] = field(default_factory=list)
    """Answers with another user's name, or with data that this session never wrote."""
    in_doubt: int = 0
    """Sessions that ended after a request to end them, or to rotate their ID, had failed."""

    def begin(self) -> object:
        """Record that a request begins, and return what `end` wants."""
        request = object()
        self.pending[request] = time.monotonic()
        return request

    def end(self, request: object, kind: str | None) -> None:
        """Record the end of *request*; *kind* is None unless it failed."""
        began, now = self.pending.pop(request), time.monotonic()
        self.requests.append((began, now))
        self.longest_s = max(self.longest_s, now - began)
        if kind is None:
            self.answered += 1
        else:
            self.errors[kind] += 1
            self.failed_at.append(now)

    def is_quiet(self, since: float, *, for_s: float) -> bool:
        """Whether for a while nothing has failed, and no request has been waiting longer than that."""
        latest = max(self.failed_at, default=since)
        oldest = time.monotonic() - for_s
        return max(since, latest) < oldest and all(began > oldest for began in self.pending.values())

    def served_again(self, healed: float) -> float:
        """Return when the last request ended that failed, or that was sent before *healed*."""
        return max([healed, *self.failed_at, *(ended for began, ended in self.requests if began <= healed)])

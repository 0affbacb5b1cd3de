"""`Clock`: the time of a session manager, moved by a test."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Clock:
    """Unix time in seconds that a test moves: `SessionManager(..., clock=Clock())`.

    Args:
        now_s: None: the clock begins at the present and goes on as the clock of the system does, so it agrees
            with other clocks of the application. Otherwise it stands still at this time.
    """

    def __init__(self, now_s: float | None = None) -> None:
        self._now_s = now_s
        self._ahead_s = 0.0
        self._subscribers: dict[Callable[[], object], None] = {}

    def __call__(self) -> float:
        """Return the time."""
        return self._ahead_s + (time.time() if self._now_s is None else self._now_s)

    def advance(self, seconds: float) -> None:
        """Move the clock forward by *seconds*; a negative number sets it back.

        Sessions that sockets and streams of a `Client`'s application hold are checked at once, so that those
        whose time is over are closed.

        Raises:
            ValueError: Not a finite number.
        """
        if not math.isfinite(seconds):
            raise ValueError(f"a clock moves by a finite number of seconds, not {seconds!r}")
        self._ahead_s += seconds
        for subscriber in self._subscribers:
            subscriber()

    def subscribe(self, subscriber: Callable[[], object]) -> None:
        """Call *subscriber* after each `advance`; given twice, it is called once."""
        self._subscribers[subscriber] = None

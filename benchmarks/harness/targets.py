"""The performance targets; each is a ratio of two measurements of the same run."""

from __future__ import annotations

TO_BARE = {
    ("memory", "read"): 0.90,
    ("memory", "write"): 0.80,
    ("memory", "login"): 0.78,
    ("redis", "read"): 0.80,
    ("redis", "write"): 0.75,
    ("redis", "login"): 0.78,
    ("mongo", "read"): 0.70,
    ("mongo", "write"): 0.50,
    ("mongo", "login"): 0.55,
}
"""Minimum ratio of requests per second to a bare Tornado handler."""

P99_TO_BARE = 2.0
"""Maximum ratio of the 99th percentile to a bare handler's at the same concurrency."""

READ_TO_EXPRESS = {"memory": 1.35, "redis": 1.30, "mongo": 2.5}
"""Minimum ratio of reads per second to Express with the same store."""

MANY_TO_FEW = 0.95
"""Minimum ratio of reads per second with a million sessions in the store to a thousand."""

PUSH_MEDIAN_MS, PUSH_P99_MS = 20.0, 50.0
"""Maximum time from the request that ends a session to the close frame at the client of its socket."""

EVERYWHERE_S = 1.0
"""Maximum time from the answer to "sign out everywhere" of a thousand sessions to the last close frame."""

BLOCK_MS = 20.0
"""Maximum time for which the regular checks, or the end of many sessions, may block the event loop."""


def verdict(value: float, target: float, *, at_most: bool = False) -> str:
    """Return "met" if *value* meets *target*, else "missed"."""
    return "met" if (value <= target if at_most else value >= target) else "missed"

"""What the project aims at, always a ratio of two figures from the same run."""

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
"""Requests a second against a bare Tornado handler: at least."""

P99_TO_BARE = 2.0
"""The 99th percentile against that of a bare handler at the same concurrency: at most."""

READ_TO_EXPRESS = {"memory": 1.35, "redis": 1.30, "mongo": 2.5}
"""Reads a second against Express with the same store: at least."""

MANY_TO_FEW = 0.95
"""Reads a second with a million sessions in the store against those with a thousand: at least."""


def verdict(figure: float, target: float, *, at_most: bool = False) -> str:
    """Return whether *figure* meets *target*, as a word."""
    return "met" if (figure <= target if at_most else figure >= target) else "missed"

"""The clock of this machine, compared with those of the servers of the store."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from stormcellar.stores import Store
from stormcellar.stores.errors import Problem, StoreError

BOUND_S = 5.0
"""How far the clocks may differ. Then those of two machines of ours differ by 10 s at most, a third of the
time in which a request counts as late."""

TRIES = 3


async def ahead_s(store: Store, *, now: Callable[[], float] = time.time) -> float | None:
    """Return by how many seconds the clock of the store is ahead of ours, negative if it is behind.

    It is the largest difference among the servers. Half of the round trip is taken off, and the fastest of
    `TRIES` requests counts. None if the store does not tell the time.
    """
    fastest: dict[int, tuple[float, float]] = {}
    try:
        for _ in range(TRIES):
            number, asked_s = 0, now()
            async for told_ms in store.server_times():
                answered_s = now()
                ahead = told_ms / 1000 - (asked_s + answered_s) / 2
                known = fastest.get(number, (math.inf, 0.0))
                fastest[number] = min(known, (answered_s - asked_s, ahead))
                number, asked_s = number + 1, now()
    except StoreError:
        return None
    return max((ahead for _, ahead in fastest.values()), key=abs, default=None)


def described(ahead: float) -> str:
    """Return the difference in words, such as `its clock is 0.004 s ahead of this machine's`."""
    return f"its clock is {abs(ahead):.3f} s {'ahead of' if ahead >= 0 else 'behind'} this machine's"


def problem_with(ahead: float | None) -> Problem | None:
    """Return what is wrong if the clocks differ by more than `BOUND_S`."""
    if ahead is None or abs(ahead) <= BOUND_S:
        return None
    return Problem(
        described(ahead),
        "set all clocks with NTP: they decide when a session ends, and which requests are late",
    )

"""Values and helpers of the counter tests: rules, new keys, and tallies at their limit."""

from __future__ import annotations

import secrets

from stormcellar.stores.conformance.cases import HOUR, MINUTE, NOW, SECOND
from stormcellar.stores.counters import Counters, Rule, Tally

THREE = Rule(limit=3, first_wait_ms=10 * SECOND, longest_wait_ms=MINUTE, keep_ms=HOUR)

ONE = Rule(limit=1, first_wait_ms=10 * SECOND, longest_wait_ms=MINUTE, keep_ms=HOUR)

ONLY_COUNTED = Rule(limit=1, first_wait_ms=0, longest_wait_ms=0, keep_ms=HOUR)

DAY = 24 * HOUR


def new_key() -> str:
    """Return the key of a tally that does not exist."""
    return f"key-{secrets.token_hex(8)}"


async def takes(
    counters: Counters, key: str, number: int, rule: Rule = THREE, *, now_ms: int = NOW
) -> list[Tally]:
    """Try to take *number* of them, one after the other, all at *now_ms*."""
    return [await counters.take(key, rule, now_ms=now_ms) for _ in range(number)]


async def limited(counters: Counters, key: str, extra: int = 0) -> Tally:
    """Take all that are free under `THREE`, then *extra* more, each as soon as allowed; return the last."""
    tally = (await takes(counters, key, 3))[-1]
    for _ in range(extra):
        tally = await counters.take(key, THREE, now_ms=tally.next_ms)
        assert tally.taken
    return tally

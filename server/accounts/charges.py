"""Charges of one attempt on several tallies at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from stormcellar.errors import Throttled
from stormcellar.stores import Counters, Rule, Tally


async def take_each(counters: Counters, rules: Mapping[str, Rule], *, now_ms: int) -> dict[str, Tally]:
    """Take one from each tally, or from none.

    Returns:
        The tallies by key. If one of them refused (`taken` is False), the others were given back.

    Raises:
        StoreUnavailable: The store gave no answer; some of the tallies may have counted it.
    """
    taken = await asyncio.gather(*(counters.take(key, rule, now_ms=now_ms) for key, rule in rules.items()))
    tallies = dict(zip(rules, taken, strict=True))
    if not all(tally.taken for tally in taken):
        await asyncio.gather(
            *(counters.give_back(key, t, now_ms=now_ms) for key, t in tallies.items() if t.taken)
        )
    return tallies


async def charge(
    counters: Counters, limits: Mapping[str, Rule], *, read: Mapping[str, Tally], now_ms: int
) -> dict[str, Tally]:
    """Take one from each tally of *limits*, from the first one before the others.

    Args:
        read: Tallies that were read already; if one of them is full, nothing is written.

    Raises:
        Throttled: One of them refused, so nothing is charged. It has the whole seconds until the last wait
            of all *limits* is over.
        StoreUnavailable: The store gave no answer; some of the tallies may have counted the attempt.
    """
    if any(tally.count >= limits[key].limit and now_ms < tally.next_ms for key, tally in read.items()):
        raise await _refusal(counters, limits, now_ms)
    first, *others = limits
    charged = await take_each(counters, {first: limits[first]}, now_ms=now_ms)
    if charged[first].taken:
        charged |= await take_each(counters, {key: limits[key] for key in others}, now_ms=now_ms)
        if not all(tally.taken for tally in charged.values()):
            await counters.give_back(first, charged[first], now_ms=now_ms)
    if refused := [tally for tally in charged.values() if not tally.taken]:
        raise await _refusal(counters, limits, now_ms, *refused)
    return charged


async def charge_one_of(
    counters: Counters,
    ways: Sequence[Mapping[str, Rule]],
    *,
    read: Mapping[str, Tally],
    now_ms: int,
) -> dict[str, Tally]:
    """Charge by the first of *ways*, each as for `charge`, that does not refuse.

    Raises:
        Throttled: All refused. It has the seconds until the first of them admits an attempt.
        StoreUnavailable: The store gave no answer; some of the tallies may have counted the attempt.
    """
    refusals = []
    for limits in ways:
        try:
            return await charge(counters, limits, read=read, now_ms=now_ms)
        except Throttled as refusal:
            refusals.append(refusal)
    raise min(refusals, key=lambda refusal: refusal.retry_after_s)


async def _refusal(counters: Counters, limits: Mapping[str, Rule], now_ms: int, *refused: Tally) -> Throttled:
    tallies = await asyncio.gather(*(counters.peek(key, now_ms=now_ms) for key in limits))
    waiting = [t for t, rule in zip(tallies, limits.values(), strict=True) if t.count >= rule.limit]
    until_ms = max((tally.next_ms for tally in (*waiting, *refused)), default=now_ms)
    return Throttled(max(1, -((now_ms - until_ms) // 1000)))

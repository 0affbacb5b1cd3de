"""The counting contract as tests, for the authors of stores that keep counters.

Subclass `CountersContract` as you do `StoreContract`, and set the URL in the same way.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from stormcellar.stores.base import Store
from stormcellar.stores.conformance.cases import (
    DAY,
    HOSTILE_USERS,
    HOUR,
    NOW,
    ONE,
    ONLY_COUNTED,
    SECOND,
    THREE,
    limited,
    new_key,
    scanned,
    takes,
)
from stormcellar.stores.conformance.give_back import ReturnContract
from stormcellar.stores.conformance.opening import OpenAgain, OpenedContract
from stormcellar.stores.counters import Counters, Rule, Tally

CANCELLATIONS = 40


class CountersContract(ReturnContract, OpenedContract):
    """Every guarantee of `stores.Counters` as a test."""

    @pytest.fixture
    def counters(self, store: Store) -> Counters:
        """The counters of the store."""
        counters = store.counters()
        assert counters is not None, "this store keeps no counters"
        return counters

    # Instances

    async def test_instances_of_one_prefix_count_together(
        self, store: Store, open_again: OpenAgain, contract_prefix: str
    ) -> None:
        """Two processes share the limit; another prefix has its own."""
        if not store.shared:
            pytest.skip("this store is not shared between processes")
        key, first, second = new_key(), store.counters(), open_again(contract_prefix).counters()
        stranger = open_again(f"{contract_prefix}x").counters()
        assert first is not None and second is not None and stranger is not None

        found = [await takes(each, key, 1) for each in (first, second, first, second, stranger)]

        assert [tally.taken for [tally] in found] == [True, True, True, False, True]

    # Taking

    async def test_free_ones_are_taken_and_counted(self, counters: Counters) -> None:
        """Up to the limit each is taken at once; the last one starts the first wait."""
        taken = await takes(counters, new_key(), 3)

        assert taken == [Tally(True, 1, 0), Tally(True, 2, 0), Tally(True, 3, NOW + 10 * SECOND)]

    async def test_wait_is_exact_to_the_millisecond(self, counters: Counters) -> None:
        """A millisecond before the end of the wait none is taken; at its end exactly one is."""
        key = new_key()
        await limited(counters, key)

        early = await counters.take(key, THREE, now_ms=NOW + 10 * SECOND - 1)
        due = await takes(counters, key, 2, now_ms=NOW + 10 * SECOND)

        assert early == Tally(False, 3, NOW + 10 * SECOND)
        assert due == [Tally(True, 4, NOW + 30 * SECOND), Tally(False, 4, NOW + 30 * SECOND)]

    async def test_wait_doubles_up_to_the_longest(self, counters: Counters) -> None:
        """Each one taken after the limit doubles the wait, up to the longest."""
        key, now_ms, waits = new_key(), NOW, []
        await takes(counters, key, 2)
        for _ in range(6):
            tally = await counters.take(key, THREE, now_ms=now_ms)
            waits.append(tally.next_ms - now_ms)
            now_ms = tally.next_ms

        assert waits == [wait * SECOND for wait in (10, 20, 40, 60, 60, 60)]

    async def test_wait_stays_the_longest_however_often(self, counters: Counters) -> None:
        """Doubling does not overflow: after the seventieth the wait is the longest."""
        key = new_key()
        rule = Rule(limit=1, first_wait_ms=DAY, longest_wait_ms=366 * DAY, keep_ms=366 * DAY)
        await takes(counters, key, 69, ONLY_COUNTED)

        tally = await counters.take(key, rule, now_ms=NOW)

        assert tally == Tally(True, 70, NOW + 366 * DAY)

    async def test_refused_tries_change_nothing(self, counters: Counters) -> None:
        """Refused tries make neither the wait nor the tally last longer."""
        key = new_key()
        await limited(counters, key)

        refused = [await counters.take(key, THREE, now_ms=NOW + second * SECOND) for second in range(10)]
        kept = [(await counters.peek(key, now_ms=NOW + HOUR - early)).count for early in (1, 0)]
        due = await counters.take(key, THREE, now_ms=NOW + 10 * SECOND)

        assert refused == [Tally(False, 3, NOW + 10 * SECOND)] * 10
        assert kept == [3, 0]
        assert due == Tally(True, 4, NOW + 30 * SECOND)

    async def test_clock_behind_the_backend_counts_as_well(self, counters: Counters) -> None:
        """By a clock that is an hour behind, no tally is lost, so that no limit is ever without effect."""
        now_ms = NOW - HOUR - SECOND

        taken = await takes(counters, new_key(), 4, now_ms=now_ms)

        assert [tally.count for tally in taken] == [1, 2, 3, 3]
        assert taken[-1] == Tally(False, 3, now_ms + 10 * SECOND)

    async def test_without_a_wait_there_is_only_counting(self, counters: Counters) -> None:
        """Under a rule without waits every try is taken."""
        taken = await takes(counters, new_key(), 50, ONLY_COUNTED)

        assert [(tally.taken, tally.count) for tally in taken] == [(True, count) for count in range(1, 51)]

    async def test_another_rule_judges_the_same_tally(self, counters: Counters) -> None:
        """A stricter rule continues from the count of a milder one, and vice versa."""
        key = new_key()
        await takes(counters, key, 1)

        strict = await takes(counters, key, 2, ONE)
        mild = await takes(counters, key, 2, THREE)

        assert strict == [Tally(True, 2, NOW + 20 * SECOND), Tally(False, 2, NOW + 20 * SECOND)]
        assert mild == [Tally(True, 3, NOW + 10 * SECOND), Tally(False, 3, NOW + 10 * SECOND)]

    @pytest.mark.parametrize("limit", [1, 5])
    async def test_parallel_takes_never_pass_the_limit(self, counters: Counters, limit: int) -> None:
        """Of a hundred at once exactly as many are taken as are free, each with its own number."""
        key = new_key()
        rule = Rule(limit=limit, first_wait_ms=SECOND, longest_wait_ms=SECOND, keep_ms=HOUR)

        tallies = await asyncio.gather(*(counters.take(key, rule, now_ms=NOW) for _ in range(100)))

        taken = sorted(tally.count for tally in tallies if tally.taken)
        assert taken == list(range(1, limit + 1))
        assert {tally for tally in tallies if not tally.taken} == {Tally(False, limit, NOW + SECOND)}

    async def test_one_of_parallel_takes_gets_the_one_that_is_due(self, counters: Counters) -> None:
        """At the end of a wait, one of fifty parallel tries is taken."""
        key = new_key()
        await limited(counters, key)

        due = NOW + 10 * SECOND
        tallies = await asyncio.gather(*(counters.take(key, THREE, now_ms=due) for _ in range(50)))

        assert Counter(tally.taken for tally in tallies) == {True: 1, False: 49}

    # Peeking

    async def test_peek_tells_and_takes_none(self, counters: Counters) -> None:
        """It returns the count and the wait, zero without a tally, and changes nothing."""
        key = new_key()
        before = await counters.peek(key, now_ms=NOW)
        await limited(counters, key)

        told = [await counters.peek(key, now_ms=now_ms) for now_ms in (NOW, NOW + HOUR - 1, NOW + HOUR)]

        assert before == Tally(False, 0, 0)
        assert told == [Tally(False, 3, NOW + 10 * SECOND)] * 2 + [Tally(False, 0, 0)]

    # Keys

    async def test_keys_are_any_text(self, counters: Counters) -> None:
        """Hostile keys have separate tallies, given back and removed like any other."""
        run = new_key()
        keys = [
            *(f"{key}{run}" for key in HOSTILE_USERS),
            *(f"{run}{key}" for key in HOSTILE_USERS),
            f"${run}",
        ]
        for key in keys:
            await counters.take(key, THREE, now_ms=NOW)
        seconds = [await counters.take(key, THREE, now_ms=NOW) for key in keys]
        await counters.give_back(keys[0], seconds[0], now_ms=NOW)
        await counters.forget(keys[-1])

        counts = [(await counters.peek(key, now_ms=NOW)).count for key in keys]
        assert counts == [1, *[2] * (len(keys) - 2), 0]

    @pytest.mark.parametrize("key", ["", "\ud800", "a\udfff"], ids=ascii)
    async def test_what_is_no_key_is_refused(self, counters: Counters, key: str) -> None:
        """An empty key, or one with a lone surrogate, raises ValueError."""
        with pytest.raises(ValueError):
            await counters.take(key, THREE, now_ms=NOW)
        with pytest.raises(ValueError):
            await counters.peek(key, now_ms=NOW)
        with pytest.raises(ValueError):
            await counters.give_back(key, Tally(True, 1, 0), now_ms=NOW)
        with pytest.raises(ValueError):
            await counters.forget(key)

    # With the store

    async def test_counters_of_one_store_are_the_same(self, store: Store) -> None:
        """A second call of `counters` returns the same tallies."""
        first, second, key = store.counters(), store.counters(), new_key()
        assert first is not None
        assert second is not None

        await first.take(key, THREE, now_ms=NOW)

        assert (await second.peek(key, now_ms=NOW)).count == 1

    async def test_tallies_are_no_sessions(self, store: Store, counters: Counters) -> None:
        """A scan of the sessions yields no tally."""
        key = new_key()
        await counters.take(key, THREE, now_ms=NOW)

        assert key not in await scanned(store)

    async def test_cancelled_calls_happen_whole_or_not_at_all(self, counters: Counters) -> None:
        """A take cancelled at many points was counted or was not, and no other call gets its reply."""
        others = {new_key(): number for number in range(1, 9)}
        for key, number in others.items():
            await takes(counters, key, number, ONLY_COUNTED)
        for turns in range(CANCELLATIONS):
            key = new_key()
            await takes(counters, key, 2)
            task = asyncio.create_task(counters.take(key, THREE, now_ms=NOW))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            answer, *found = await asyncio.gather(
                task, *(counters.peek(other, now_ms=NOW) for other in others), return_exceptions=True
            )

            assert [tally.count for tally in found if isinstance(tally, Tally)] == list(others.values())
            assert isinstance(answer, asyncio.CancelledError) or answer == Tally(True, 3, NOW + 10 * SECOND)
            after = await counters.peek(key, now_ms=NOW)
            assert after in (Tally(False, 2, 0), Tally(False, 3, NOW + 10 * SECOND))

    async def test_hundred_and_sixty_calls_are_all_answered(self, counters: Counters) -> None:
        """With more parallel calls than connections, each call gets its own reply."""
        keys = [new_key() for _ in range(160)]

        taken = await asyncio.gather(*(counters.take(key, ONE, now_ms=NOW + n) for n, key in enumerate(keys)))

        assert taken == [Tally(True, 1, NOW + n + 10 * SECOND) for n in range(160)]

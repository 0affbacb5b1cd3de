"""Tests of tallies that are given back, removed, or over."""

from __future__ import annotations

import asyncio

from stormcellar.stores.conformance.cases import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    ONE,
    ONLY_COUNTED,
    SECOND,
    THREE,
    limited,
    new_key,
    takes,
)
from stormcellar.stores.counters import Counters, Tally


class ReturnContract:
    """Tests of `give_back` and `forget`, and of the end of a tally."""

    # Giving back

    async def test_what_is_given_back_is_free_again(self, counters: Counters) -> None:
        """The count goes down by one, and another may be taken in its place."""
        key = new_key()
        second = (await takes(counters, key, 2))[-1]

        await counters.give_back(key, second, now_ms=NOW)

        assert await takes(counters, key, 3) == [
            Tally(True, 2, 0),
            Tally(True, 3, NOW + 10 * SECOND),
            Tally(False, 3, NOW + 10 * SECOND),
        ]

    async def test_giving_back_ends_the_wait_it_began(self, counters: Counters) -> None:
        """Giving back the take that reached the limit, or a later one, also ends its wait."""
        key = new_key()
        last = await limited(counters, key)
        await counters.give_back(key, last, now_ms=NOW)
        again = await counters.take(key, THREE, now_ms=NOW)
        beyond = await counters.take(key, THREE, now_ms=again.next_ms)

        await counters.give_back(key, beyond, now_ms=again.next_ms)

        assert again == last
        assert await counters.take(key, THREE, now_ms=again.next_ms) == beyond

    async def test_giving_back_leaves_the_wait_of_another(self, counters: Counters) -> None:
        """A wait that a later take started continues, with the count lower by one."""
        key = new_key()
        early = await limited(counters, key)
        late = await counters.take(key, THREE, now_ms=early.next_ms)

        await counters.give_back(key, early, now_ms=early.next_ms)

        assert await counters.take(key, THREE, now_ms=late.next_ms - 1) == Tally(False, 3, late.next_ms)
        assert (await counters.take(key, THREE, now_ms=late.next_ms)).taken

    async def test_giving_back_does_not_reset_the_delay(self, counters: Counters) -> None:
        """Successes among failures do not shorten the wait."""
        key = new_key()
        waits_until = (await limited(counters, key)).next_ms
        for _ in range(3):
            good = await counters.take(key, THREE, now_ms=waits_until)
            await counters.give_back(key, good, now_ms=waits_until)

        bad = await counters.take(key, THREE, now_ms=waits_until)

        assert bad == Tally(True, 4, waits_until + 20 * SECOND)

    async def test_giving_back_the_last_forgets(self, counters: Counters) -> None:
        """At zero, neither a count nor a wait is left."""
        key = new_key()
        only = await counters.take(key, ONE, now_ms=NOW)

        await counters.give_back(key, only, now_ms=NOW)

        assert await counters.peek(key, now_ms=NOW) == Tally(False, 0, 0)
        assert await counters.take(key, ONE, now_ms=NOW) == only

    async def test_giving_back_never_goes_below_zero(self, counters: Counters) -> None:
        """Giving back to a removed or expired tally does nothing, so no credit results."""
        key, expired = new_key(), new_key()
        first = await counters.take(key, THREE, now_ms=NOW)
        old = (await takes(counters, expired, 2))[-1]
        await counters.forget(key)

        for _ in range(3):
            await counters.give_back(key, first, now_ms=NOW)
        await counters.give_back(expired, old, now_ms=NOW + HOUR)

        assert await counters.take(key, THREE, now_ms=NOW) == Tally(True, 1, 0)
        assert await counters.take(expired, THREE, now_ms=NOW + HOUR) == Tally(True, 1, 0)

    async def test_nothing_is_left_of_a_tally_at_zero(self, counters: Counters) -> None:
        """If giving back brings a tally to zero, its wait ends too, even if another take started it."""
        key = new_key()
        old = await counters.take(key, ONE, now_ms=NOW)
        await counters.forget(key)
        await counters.take(key, ONE, now_ms=NOW + 1)

        await counters.give_back(key, old, now_ms=NOW + 1)

        assert await counters.peek(key, now_ms=NOW + 1) == Tally(False, 0, 0)

    async def test_giving_back_does_not_move_the_end(self, counters: Counters) -> None:
        """The tally ends when it would have ended."""
        key = new_key()
        tallies = await takes(counters, key, 2)

        await counters.give_back(key, tallies[1], now_ms=NOW + 30 * MINUTE)

        assert (await counters.peek(key, now_ms=NOW + HOUR - 1)).count == 1
        assert (await counters.peek(key, now_ms=NOW + HOUR)).count == 0

    async def test_parallel_takes_and_returns_add_up(self, counters: Counters) -> None:
        """Fifty given back among fifty taken leave the count unchanged."""
        key = new_key()
        tallies = await takes(counters, key, 50, ONLY_COUNTED)

        await asyncio.gather(
            *(counters.give_back(key, tally, now_ms=NOW) for tally in tallies),
            *(counters.take(key, ONLY_COUNTED, now_ms=NOW) for _ in range(50)),
            *(counters.peek(key, now_ms=NOW) for _ in range(10)),
        )

        assert (await counters.peek(key, now_ms=NOW)).count == 50

    # Forgetting

    async def test_forget_starts_anew(self, counters: Counters) -> None:
        """Count, wait and doubling start again; removing an absent tally succeeds."""
        key = new_key()
        await limited(counters, key, extra=2)

        await counters.forget(key)
        await counters.forget(key)

        assert await takes(counters, key, 3) == [
            Tally(True, 1, 0),
            Tally(True, 2, 0),
            Tally(True, 3, NOW + 10 * SECOND),
        ]

    async def test_end_is_exact_and_moves_with_each_one_taken(self, counters: Counters) -> None:
        """A tally is kept for its time after the last one taken, to the millisecond."""
        key = new_key()
        await counters.take(key, THREE, now_ms=NOW)
        await counters.take(key, THREE, now_ms=NOW + HOUR - 1)

        last = await counters.take(key, THREE, now_ms=NOW + 2 * HOUR - 2)
        anew = await counters.take(key, THREE, now_ms=NOW + 3 * HOUR - 2)

        assert (last.count, anew.count) == (3, 1)

    async def test_the_callers_clock_is_the_only_one(self, counters: Counters) -> None:
        """A month from now the waits are the same, whatever the real time."""
        key, then = new_key(), NOW + 30 * DAY

        taken = await takes(counters, key, 4, now_ms=then)
        due = await counters.take(key, THREE, now_ms=then + 10 * SECOND)

        assert [tally.taken for tally in taken] == [True, True, True, False]
        assert due == Tally(True, 4, then + 30 * SECOND)

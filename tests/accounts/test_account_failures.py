"""Guesses on one account from many addresses: limited in all, without locking its owner out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stormcellar.accounts.throttle import Rules, Throttle
from stormcellar.errors import Throttled
from stormcellar.stores import Store
from stormcellar.stores.memory import MemoryStore
from stormcellar.testing.faulty_store import FaultyCounters
from tests.support.fakes import Clock, SteeredStore

KEY = b"a key for the throttle, 32 bytes."
HOME, HOTEL = "192.0.2.7", "198.51.100.9"
MINUTE, HOUR, DAY = 60, 3600, 86_400


class Desk:
    """A throttle with a clock that a test moves, and attackers with a new address for each guess."""

    def __init__(self, store: Store | None = None, **rules: int) -> None:
        self.clock = Clock(1_900_000_800.0)
        self.store = SteeredStore(store or MemoryStore())
        self.throttle = Throttle(self.store.counters(), key=KEY, rules=Rules(**rules), clock=self.clock)
        self._guesses = 0

    async def wait_s(self, address: str, name: str = "alice", *, since_ms: int = 0) -> int:
        """Return the seconds that an attempt has to wait, 0 if it is admitted (and then not made)."""
        try:
            admission = await self.throttle.admit(name, address, since_ms=since_ms)
        except Throttled as refused:
            return refused.retry_after_s
        await self.throttle.give_back(admission)
        return 0

    async def succeeds(self, address: str, name: str = "alice") -> None:
        """Sign in."""
        await self.throttle.record_success(await self.throttle.admit(name, address))

    async def guess(self, name: str = "alice") -> bool:
        """Guess once from an address that nobody has used. Return whether the password was checked."""
        self._guesses += 1
        return await self.fails(
            f"10.{self._guesses >> 16}.{self._guesses >> 8 & 255}.{self._guesses & 255}", name
        )

    async def fails(self, address: str, name: str = "alice") -> bool:
        """Fail once. Return whether the password was checked."""
        try:
            await self.throttle.admit(name, address)
        except Throttled:
            return False
        return True

    async def guesses(self, seconds: int, *, every_s: int) -> int:
        """Guess all the time, and return how many passwords were checked."""
        checked = 0
        for _ in range(seconds // every_s):
            checked += await self.guess()
            self.clock.advance(every_s)
        return checked


@pytest.mark.gen_test
async def test_fifty_are_free_then_all_unknown_addresses_wait(store: Store) -> None:
    """For a minute, then twice as long each time; Retry-After is exact."""  # E9
    desk = Desk(store)
    checked = [await desk.guess() for _ in range(60)]
    waits = [await desk.wait_s(HOTEL)]
    for _ in range(3):
        desk.clock.advance(waits[-1] - 1)
        before = await desk.wait_s(HOTEL)
        desk.clock.advance(1)
        assert (before, await desk.guess(), await desk.guess()) == (1, True, False)
        waits.append(await desk.wait_s(HOTEL))

    assert checked == [True] * 50 + [False] * 10
    assert waits == [MINUTE, 2 * MINUTE, 4 * MINUTE, 8 * MINUTE]


@pytest.mark.gen_test
async def test_owner_gets_in_at_a_known_address(store: Store) -> None:
    """The guesses of others do not hold up who signed in from there before, and who ends the wait."""  # E10
    desk = Desk(store)
    await desk.succeeds(HOME)
    for _ in range(60):
        await desk.guess()
    before = await desk.wait_s(HOTEL), await desk.wait_s(HOME)

    await desk.succeeds(HOME)

    assert before == (MINUTE, 0)
    assert await desk.wait_s(HOTEL) == 0


@pytest.mark.gen_test
async def test_hundred_parallel_guesses_check_fifty(store: Store) -> None:
    """However many addresses guess at once, no more are checked than are free."""  # D6 E9
    desk = Desk(store)

    checked = await asyncio.gather(*(desk.guess() for _ in range(100)))

    assert checked.count(True) == 50


@pytest.mark.gen_test
async def test_day_of_guessing_checks_sixty_passwords() -> None:
    """A new address every ten seconds: 50, ten in the rest of the first day, then fewer and fewer."""  # E9
    desk = Desk()

    first_day = await desk.guesses(DAY, every_s=10)
    next_weeks = await desk.guesses(4 * 7 * DAY, every_s=600)

    assert first_day == 60
    assert next_weeks <= 7


@pytest.mark.gen_test
async def test_hundred_guesses_take_three_quarters_of_a_year() -> None:
    """The limit of NIST SP 800-63B, 100 in a row, is reached then at the earliest."""  # E9
    desk = Desk()
    began_s = desk.clock()
    checked = 0
    while checked < 100:
        checked += await desk.guess()
        desk.clock.advance(max(1, await desk.wait_s(HOTEL)))

    assert 250 * DAY < desk.clock() - began_s < 280 * DAY


@pytest.mark.parametrize("rest_days", [8, 31, 100, 366])
@pytest.mark.gen_test
async def test_rest_gains_no_guesses(rest_days: int) -> None:
    """Whoever stops until failures might no longer count needs as long for a hundred."""  # E9
    desk = Desk()
    began_s = desk.clock()
    checked = 0
    while checked < 100:
        if await desk.guess():
            checked += 1
        else:
            desk.clock.advance(rest_days * DAY)

    assert desk.clock() - began_s > 250 * DAY


@pytest.mark.gen_test
async def test_wait_is_not_much_longer_than_the_attack() -> None:
    """Whoever guesses for a short time locks the owner's new addresses out for a short time."""  # E10
    desk = Desk()

    await desk.guesses(HOUR, every_s=5)

    assert 0 < await desk.wait_s(HOTEL) <= 64 * MINUTE


@pytest.mark.gen_test
async def test_known_addresses_have_their_own_limits() -> None:
    """Guesses from there are limited as ever, and count for all others."""  # E9
    desk = Desk()
    await desk.succeeds(HOME)

    checked = [await desk.fails(HOME) for _ in range(10)]
    others = [await desk.guess() for _ in range(60)]

    assert (checked.count(True), others.count(True)) == (5, 45)
    assert await desk.wait_s(HOME) == 10


@pytest.mark.gen_test
async def test_address_stays_known_while_it_is_used() -> None:
    """A sign-in after a month keeps it known; one that is not used for three months is not."""  # E10
    desk = Desk()
    await desk.succeeds(HOTEL)
    for _ in range(4):
        await desk.succeeds(HOME)
        desk.clock.advance(29 * DAY)
    for _ in range(60):
        await desk.guess()

    assert (await desk.wait_s(HOME), await desk.wait_s(HOTEL)) == (0, MINUTE)


@pytest.mark.gen_test
async def test_known_is_an_address_for_one_account() -> None:
    """Who signs in to an account of their own is as unknown to the others as anybody."""  # E9
    desk = Desk()
    await desk.succeeds(HOTEL, "mallory")
    for _ in range(60):
        await desk.guess()

    assert await desk.wait_s(HOTEL) == MINUTE


@pytest.mark.gen_test
async def test_failures_start_again_when_the_account_changes() -> None:
    """With a new password, what was guessed before does not count."""  # E10
    desk = Desk()
    for _ in range(60):
        await desk.guess()

    assert (await desk.wait_s(HOTEL), await desk.wait_s(HOTEL, since_ms=1)) == (MINUTE, 0)


@pytest.mark.gen_test
async def test_name_that_no_account_can_have_is_only_wrong() -> None:
    """All such names share a tally, so whoever mistypes a name would wait for the mistakes of others."""
    desk = Desk()

    assert [await desk.guess("not a name") for _ in range(100)] == [True] * 100


@pytest.mark.gen_test
async def test_longer_wait_is_told() -> None:
    """Where account and address both refuse, Retry-After is when the last of them admits again."""  # E9
    desk = Desk(attempts_per_account=1, attempts_per_address=1)
    await desk.fails(HOTEL)
    told = await desk.wait_s(HOTEL), await desk.wait_s(HOME), await desk.wait_s(HOTEL, "bob")

    assert told == (MINUTE, MINUTE, 10)


@pytest.mark.parametrize(
    ("end", "calls"), [("wrong", 9), ("right", 15), ("right again", 14), ("not checked", 14)]
)
@pytest.mark.gen_test
async def test_round_trips_of_a_sign_in(end: str, calls: int) -> None:
    """Independent calls go out together: four times for an attempt, once after it."""
    counters = MemoryStore().counters()
    if end == "right again":
        earlier = Throttle(counters, key=KEY, clock=Clock())
        await earlier.record_success(await earlier.admit("alice", HOME))
    trips = Trips()
    throttle = Throttle(FaultyCounters(counters, trips.steer), key=KEY, clock=Clock())
    admission = await throttle.admit("alice", HOME)
    attempt = len(trips.turns)
    if end.startswith("right"):
        await throttle.record_success(admission)
    elif end == "not checked":
        await throttle.give_back(admission)

    assert (attempt, len(trips.turns)) == (4, 4 if end == "wrong" else 5)
    assert trips.calls == calls


class Trips:
    """Counts the calls, and the turns of the event loop in which they were made."""

    def __init__(self) -> None:
        self.calls = 0
        self.turns: set[int] = set()
        self._turn = 0

    async def steer(self, name: str, call: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Make the call in a later turn."""
        self.calls += 1
        self.turns.add(self._turn)
        asyncio.get_running_loop().call_soon(self._next)
        await asyncio.sleep(0)
        return await call(*args, **kwargs)

    def _next(self) -> None:
        self._turn += 1

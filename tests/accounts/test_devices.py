"""Known devices: an owner gets in anywhere during an attack, and a stolen token is worth few guesses."""

from __future__ import annotations

import asyncio

import pytest

from stormcellar.accounts.throttle import Rules, Throttle
from stormcellar.errors import Throttled
from stormcellar.sessions.cookies import mint_device_token
from stormcellar.stores import Store, StoreUnavailable
from stormcellar.stores.memory import MemoryStore
from stormcellar.testing.faulty_store import FaultyCounters
from tests.accounts.test_account_failures import Trips
from tests.support.fakes import Clock, SteeredStore

KEY = b"a key for the throttle, 32 bytes."
HOME, AWAY = "192.0.2.7", "198.51.100.9"
PHONE, OTHER = mint_device_token(), mint_device_token()
MINUTE, HOUR, DAY = 60, 3600, 86_400


class Desk:
    """A throttle with a clock that a test moves, and a new address for each guess."""

    def __init__(self, store: Store | None = None, **rules: int) -> None:
        self.clock = Clock(1_900_000_800.0)
        self.memory = MemoryStore()
        self.store = SteeredStore(store or self.memory)
        self.throttle = Throttle(self.store.counters(), key=KEY, rules=Rules(**rules), clock=self.clock)
        self._guesses = 0

    async def wait_s(
        self, device: str | None = None, address: str = AWAY, name: str = "alice", *, since_ms: int = 0
    ) -> int:
        """Return the seconds that an attempt has to wait, 0 if it is admitted (and then not made)."""
        try:
            admission = await self.throttle.admit(name, address, device=device, since_ms=since_ms)
        except Throttled as refused:
            return refused.retry_after_s
        await self.throttle.give_back(admission)
        return 0

    async def signs_in(self, device: str, address: str = HOME, name: str = "alice") -> bool:
        """Sign in and return whether the device is known then."""
        await self.throttle.record_success(await self.throttle.admit(name, address, device=device))
        return await self.throttle.remember(name, device, since_ms=0)

    async def guess(self, device: str | None = None) -> bool:
        """Guess once from an address that nobody has used. Return whether the password was checked."""
        self._guesses += 1
        address = f"10.{self._guesses >> 16}.{self._guesses >> 8 & 255}.{self._guesses & 255}"
        return await self.fails(device, address)

    async def fails(self, device: str | None, address: str) -> bool:
        """Fail once. Return whether the password was checked."""
        try:
            await self.throttle.admit("alice", address, device=device)
        except Throttled:
            return False
        return True

    async def is_attacked(self) -> None:
        """Guess until an address that is not known to the account has to wait."""
        for _ in range(60):
            await self.guess()


@pytest.mark.gen_test
async def test_owner_gets_in_at_a_new_address_with_a_known_device(store: Store) -> None:
    """Guesses of others do not hold up a browser that signed in before; a sign-in ends the wait."""  # E10
    desk = Desk(store)
    await desk.signs_in(PHONE)
    await desk.is_attacked()
    before = [await desk.wait_s(each) for each in (None, OTHER, PHONE)]

    await desk.signs_in(PHONE, AWAY)

    assert before == [MINUTE, MINUTE, 0]
    assert await desk.wait_s(None, "203.0.113.5") == 0


@pytest.mark.gen_test
async def test_stolen_token_gives_five_guesses_and_then_waits(store: Store) -> None:
    """Wherever they come from, and however many at once; each wait is told, and twice as long."""  # D6, E9
    desk = Desk(store, soft_per_account=1000)
    await desk.signs_in(PHONE)
    await desk.is_attacked()
    checked = await asyncio.gather(*(desk.guess(PHONE) for _ in range(40)))
    waits = []
    for _ in range(2):
        waits.append(await desk.wait_s(PHONE))
        desk.clock.advance(waits[-1])
        assert await asyncio.gather(desk.guess(PHONE), desk.guess(PHONE)) in ([True, False], [False, True])

    assert checked.count(True) == 5
    assert waits == [10, 20]


@pytest.mark.gen_test
@pytest.mark.parametrize("pause_s", [0, 31 * DAY])
async def test_stolen_token_gives_less_than_hundred_guesses_until_it_is_unknown(pause_s: int) -> None:
    """The limit of NIST SP 800-63B holds for it as well, guessed without a break or with long ones."""  # E9
    desk = Desk(attempts_per_account=1)
    await desk.signs_in(PHONE)
    ends_s, checked = desk.clock() + 90 * DAY, 0
    while desk.clock() < ends_s:
        await desk.guess()
        checked += (admitted := await desk.guess(PHONE))
        wait_s = await desk.wait_s(PHONE)
        desk.clock.advance(pause_s if pause_s and checked % 20 == 0 and admitted else max(1, wait_s))

    assert 20 < checked < 40


@pytest.mark.gen_test
async def test_device_that_has_to_wait_counts_as_none() -> None:
    """So whoever has a token holds up neither a known address nor, without an attack, a new one."""  # E10
    desk = Desk()
    await desk.signs_in(PHONE)
    while await desk.fails(PHONE, "203.0.113.5"):
        pass
    quiet = await desk.wait_s(PHONE, AWAY), await desk.wait_s(PHONE, HOME)
    await desk.is_attacked()

    assert quiet == (0, 0)
    assert await desk.wait_s(PHONE, HOME) == 0
    assert 0 < await desk.wait_s(PHONE, AWAY) <= 20


@pytest.mark.gen_test
async def test_device_and_address_have_their_limits_together() -> None:
    """A device is no second set of free attempts at one address."""  # E9
    desk = Desk()
    await desk.signs_in(PHONE)

    checked = [await desk.fails(PHONE, HOME) for _ in range(10)]

    assert checked.count(True) == 5
    assert [await desk.wait_s(each, HOME) for each in (PHONE, None)] == [10, 10]


@pytest.mark.gen_test
async def test_sign_in_resets_the_count_of_the_device() -> None:
    """Mistakes of the owner do not add up over sign-ins, also where the device counted as none."""
    desk = Desk(attempts=2)
    await desk.signs_in(PHONE)
    for address in ("203.0.113.5", "203.0.113.6"):
        await desk.fails(PHONE, address)
    await desk.signs_in(PHONE, HOME)
    await desk.is_attacked()

    assert await desk.wait_s(PHONE, AWAY) == 0


@pytest.mark.gen_test
async def test_failures_with_a_device_count_for_all_others() -> None:
    """As those at a known address do."""  # E9
    desk = Desk(attempts_per_account=4)
    await desk.signs_in(PHONE)
    for _ in range(3):
        await desk.guess(PHONE)

    assert [await desk.guess() for _ in range(3)] == [True, False, False]


@pytest.mark.gen_test
async def test_known_device_is_exempt_from_the_wide_networks() -> None:
    """Guesses from a whole /48 do not hold up the owner's telephone in it; its own /64 does."""  # E10
    desk = Desk(attempts_per_address=2, attempts=1000)
    await desk.signs_in(PHONE)
    for number in range(4):
        await desk.fails(None, f"2001:db8:1:{number}00::1")
    waits = [await desk.wait_s(each, "2001:db8:1:ff00::1") for each in (None, PHONE)]
    for _ in range(2):
        await desk.fails(None, "2001:db8:2::1")

    assert waits == [10, 0]
    assert await desk.wait_s(PHONE, "2001:db8:2::1") == 10


@pytest.mark.gen_test
async def test_device_stays_known_while_it_is_used() -> None:
    """A sign-in after a month keeps it known; one that is not used for three months is not."""  # E10
    desk = Desk()
    await desk.signs_in(OTHER)
    for _ in range(4):
        await desk.signs_in(PHONE)
        desk.clock.advance(29 * DAY)
    await desk.is_attacked()

    assert [await desk.wait_s(each) for each in (PHONE, OTHER)] == [0, MINUTE]


@pytest.mark.gen_test
async def test_device_is_known_to_the_accounts_that_signed_in_there() -> None:
    """One token serves all accounts of a browser, and none that did not sign in there."""  # E9
    desk = Desk()
    for name in ("bob", "carol"):
        await desk.signs_in(PHONE, name=name)
    await desk.is_attacked()

    assert await desk.wait_s(PHONE) == MINUTE
    await desk.signs_in(PHONE, HOME, "bob")


@pytest.mark.gen_test
async def test_change_of_the_account_forgets_its_devices() -> None:
    """A token that was stolen before is of no use after the password is changed."""  # E9
    desk = Desk(attempts_per_account=1)
    await desk.signs_in(PHONE)
    await desk.throttle.admit("alice", AWAY, since_ms=7)

    assert await desk.wait_s(PHONE, since_ms=7) == MINUTE
    assert await desk.throttle.remember("alice", PHONE, since_ms=7)
    assert await desk.wait_s(PHONE, since_ms=7) == 0


@pytest.mark.gen_test
async def test_client_without_cookies_fills_no_store() -> None:
    """Each of its sign-ins is a new device: twenty become known, then one an hour; all sign in."""  # E9
    desk = Desk()
    known = []
    for _ in range(3 * 60):
        known.append(await desk.signs_in(mint_device_token()))
        desk.clock.advance(MINUTE)

    assert (known[:20], known[20:].count(True)) == ([True] * 20, 2)
    assert len(desk.memory.counters()) < 30
    assert await desk.throttle.remember("bob", PHONE, since_ms=0)


@pytest.mark.gen_test
async def test_device_that_is_known_is_never_too_many(store: Store) -> None:
    """Sign-ins at the same time make it known once, and later ones find it."""  # D6
    desk = Desk(store)
    together = await asyncio.gather(*(desk.throttle.remember("alice", PHONE, since_ms=0) for _ in range(40)))
    others = [await desk.throttle.remember("alice", mint_device_token(), since_ms=0) for _ in range(20)]

    assert (together, others) == ([True] * 40, [True] * 19 + [False])
    assert await desk.throttle.remember("alice", PHONE, since_ms=0)


@pytest.mark.gen_test
@pytest.mark.parametrize("call", ["take", "forget"])
async def test_device_stays_unknown_if_the_store_fails(call: str, caplog: pytest.LogCaptureFixture) -> None:
    """The sign-in is not disturbed; the log says so without the token."""
    desk = Desk()
    for _ in range(20):
        await desk.throttle.remember("alice", mint_device_token(), since_ms=0)
    desk.store.fail[call] = StoreUnavailable("down")

    assert not await desk.throttle.remember("alice", PHONE, since_ms=0)
    assert caplog.messages == ["a device stays unknown to the account that signed in there: down"]


@pytest.mark.parametrize(
    ("device", "end", "calls"),
    [
        (None, "wrong", 9),
        (OTHER, "wrong", 10),
        (PHONE, "wrong", 11),
        (None, "right", 14),
        (PHONE, "right", 17),
    ],
)
@pytest.mark.gen_test
async def test_round_trips_with_a_device(device: str | None, end: str, calls: int) -> None:
    """A token takes no further round trip; a known one is counted, which takes two more calls."""
    desk = Desk()
    await desk.signs_in(PHONE)
    trips = Trips()
    counters = FaultyCounters(desk.memory.counters(), trips.steer)
    throttle = Throttle(counters, key=KEY, clock=desk.clock)
    admission = await throttle.admit("alice", HOME, device=device)
    if end == "right":
        await throttle.record_success(admission)

    assert (trips.calls, len(trips.turns)) == (calls, 4 if end == "wrong" else 5)


@pytest.mark.parametrize(("device", "calls"), [(PHONE, 1), (OTHER, 2)])
@pytest.mark.gen_test
async def test_round_trips_to_remember_a_device(device: str, calls: int) -> None:
    """One for a device that is known, two for a new one."""
    desk = Desk()
    await desk.signs_in(PHONE)
    trips = Trips()
    throttle = Throttle(FaultyCounters(desk.memory.counters(), trips.steer), key=KEY, clock=desk.clock)

    assert await throttle.remember("alice", device, since_ms=0)
    assert (trips.calls, len(trips.turns)) == (calls, calls)

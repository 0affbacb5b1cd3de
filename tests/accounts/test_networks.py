"""An IPv6 address counts with its /64, /56 and /48, for sign-in and for the sessions of visitors."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from stormcellar.accounts.charges import take_each
from stormcellar.accounts.throttle import Rules, Throttle
from stormcellar.accounts.visitor_limit import VisitorLimit
from stormcellar.errors import Throttled
from stormcellar.networks import networks_of
from stormcellar.sessions.request_info import Client
from stormcellar.stores import Rule, Store
from stormcellar.stores.conformance.cases import NOW, ONE, THREE, new_key
from stormcellar.stores.memory import MemoryStore
from tests.support.fakes import Clock, SteeredStore

KEY = b"a key for the throttle, 32 bytes."

Place = Callable[[int], str]


def address(number: int) -> str:
    """Return an address in a /64 of its own, all in one /48 and each 256 of them in one /56."""
    return f"2001:db8:1:{number:x}::1"


def spread(number: int) -> str:
    """Return an address in a /56 of its own, 256 of them in one /48."""
    return address(number << 8)


@dataclass(frozen=True)
class Visit:
    """A request of a visitor that begins a session."""

    client: Client
    is_safe: bool = False
    may_set_cookie: bool = True


class Desk:
    """A throttle and a limit on visitors on one store, with a clock that begins at a full hour."""

    def __init__(self, store: Store | None = None, *, per_address: int = 50) -> None:
        self.clock = Clock(1_900_000_800.0)
        self.store = SteeredStore(store or MemoryStore())
        counters = self.store.counters()
        rules = Rules(attempts_per_address=per_address)
        self.throttle = Throttle(counters, key=KEY, rules=rules, clock=self.clock)
        self.visitors = VisitorLimit(counters, key=KEY, per_address=per_address, clock=self.clock)

    async def guess(self, number: int, where: str) -> int:
        """Try a name of its own, which fails. Return 0, or the seconds to wait."""
        return await waits(self.throttle.admit(f"user{number}", where))

    async def visit(self, where: str) -> int:
        """Begin a visitor's session. Return 0, or the seconds to wait."""
        return await waits(self.visitors.admit(Visit(Client(where, ""))))


async def waits(attempt: Awaitable[object]) -> int:
    """Return 0 if *attempt* is admitted, or the seconds to wait."""
    try:
        await attempt
    except Throttled as refused:
        return refused.retry_after_s
    return 0


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("192.0.2.7", ["192.0.2.7"]),
        ("::ffff:192.0.2.7", ["192.0.2.7"]),
        ("::ffff:c000:207", ["192.0.2.7"]),
        ("2001:db8:1:2:3:4:5:6", ["2001:db8:1:2::/64", "2001:db8:1::/56", "2001:db8:1::/48"]),
        ("2001:0DB8:0001:0302::1", ["2001:db8:1:302::/64", "2001:db8:1:300::/56", "2001:db8:1::/48"]),
        ("2001:db8:1:2:ffff::%eth0", ["2001:db8:1:2::/64", "2001:db8:1::/56", "2001:db8:1::/48"]),
        ("::1", ["::/64", "::/56", "::/48"]),
        ("0.0.0.0", ["0.0.0.0"]),
        ("", [""]),
        ("unix:@", ["unix:@"]),
        ("192.0.2.07", ["192.0.2.07"]),
    ],
)
def test_networks_of_an_address(address: str, names: list[str]) -> None:
    """IPv4 counts as it is, mapped into IPv6 too; IPv6 by its networks, whatever the scope says."""  # E11
    assert [network.name for network in networks_of(address)] == names


@pytest.mark.parametrize(("per_address", "limits"), [(50, [50, 75, 100]), (1, [1, 2, 2]), (10, [10, 15, 20])])
def test_limits_grow_with_the_network(per_address: int, limits: list[int]) -> None:
    """Wider networks have more users, so each step has half as many attempts more."""
    assert [network.limit(per_address) for network in networks_of("2001:db8::1")] == limits


@pytest.mark.gen_test
async def test_a_whole_ipv6_network_is_one_address() -> None:
    """On one account a /64 has five tries, not one for each address."""  # E9 E11
    desk = Desk()
    for host in range(1, 6):
        await desk.throttle.admit("alice", f"2001:db8:1:2::{host:x}")

    assert await waits(desk.throttle.admit("alice", "2001:db8:1:2:dead::beef")) == 10
    assert await waits(desk.throttle.admit("alice", "2001:db8:1:3::1")) == 0


@pytest.mark.parametrize(("place", "admitted"), [(address, 15), (spread, 20)], ids=["one /56", "one /48"])
@pytest.mark.gen_test
async def test_guesses_from_one_wide_network_are_limited(place: Place, admitted: int, store: Store) -> None:
    """However many networks of 64 bits its owner has; another network is not concerned."""  # E9
    desk = Desk(store, per_address=10)

    told = Counter([await desk.guess(number, place(number)) for number in range(30)])

    assert told == {0: admitted, 10: 30 - admitted}
    assert await desk.guess(999, "2001:db8:2::1") == 0
    desk.clock.advance(10)
    assert await desk.guess(1000, place(200)) == 0
    assert await desk.guess(1001, place(201)) == 20


@pytest.mark.gen_test
async def test_parallel_guesses_from_one_wide_network_are_limited(store: Store) -> None:
    """No more are admitted at once than one after the other; none of the attempts is lost."""  # D6 E9
    desk = Desk(store, per_address=10)

    told = await asyncio.gather(*(desk.guess(number, spread(number)) for number in range(40)))

    later = [await desk.guess(number, spread(number)) for number in range(100, 130)]
    assert told.count(0) + later.count(0) == 20


@pytest.mark.gen_test
async def test_a_whole_48_has_a_hundred_guesses() -> None:
    """By default, as long as none succeeds; then it waits like one address."""  # E9
    desk = Desk()

    assert [await desk.guess(number, spread(number)) for number in range(150)].count(0) == 100


@pytest.mark.gen_test
async def test_refused_guess_charges_no_network() -> None:
    """What the /64 refuses leaves the /56 and the /48 as they were, and the other way round."""  # E10
    desk = Desk(per_address=4)
    for number in range(50):
        await desk.guess(number, address(1))
    first = [await desk.guess(number, address(2)) for number in range(2)]
    for number in range(50):
        await desk.guess(number, address(3))
    second = [await desk.guess(number, spread(1)) for number in range(3)]

    assert (first, second) == ([0, 0], [0, 0, 10])


@pytest.mark.gen_test
async def test_success_takes_its_charge_back_everywhere() -> None:
    """A hundred users of one /48 who sign in leave nothing behind."""  # E10
    desk = Desk(per_address=2)

    for number in range(100):
        admission = await desk.throttle.admit(f"user{number}", spread(number))
        await desk.throttle.record_success(admission)

    assert [await desk.guess(200 + number, spread(number)) for number in range(5)] == [0, 0, 0, 0, 10]


@pytest.mark.gen_test
async def test_known_address_is_not_held_up_by_its_neighbours() -> None:
    """An attacker in the same /48 cannot lock out who has signed in from another /64 of it before."""  # E10
    desk = Desk()
    own = address(7)
    await desk.throttle.record_success(await desk.throttle.admit("alice", own))
    for number in range(150):
        await desk.guess(number, spread(number))

    assert await waits(desk.throttle.admit("alice", own)) == 0
    assert await waits(desk.throttle.admit("bob", own)) == 10


@pytest.mark.parametrize(("place", "admitted"), [(address, 15), (spread, 20)], ids=["one /56", "one /48"])
@pytest.mark.gen_test
async def test_visitors_from_one_wide_network_are_limited(place: Place, admitted: int, store: Store) -> None:
    """Until the hour is over; a refused one charges no other network."""  # H7
    desk = Desk(store, per_address=10)
    desk.clock.advance(600)

    told = Counter([await desk.visit(place(number)) for number in range(40)])

    assert told == {0: admitted, 3000: 40 - admitted}
    assert await desk.visit("2001:db8:2::1") == 0
    desk.clock.advance(3000)
    assert await desk.visit(place(0)) == 0


@pytest.mark.gen_test
async def test_visitors_refused_by_one_network_charge_no_other() -> None:
    """A /64 that is over its limit leaves the rest to its neighbours."""  # H7
    desk = Desk(per_address=4)
    for _ in range(50):
        await desk.visit(address(1))

    assert [await desk.visit(address(2)) for _ in range(3)] == [0, 0, 3600]


@pytest.mark.gen_test
async def test_take_each_takes_all_or_none(store: Store) -> None:
    """If one refuses, the count and the wait of the others are as before."""  # D6
    counters = store.counters()
    assert counters is not None
    full, free = new_key(), new_key()
    rules: dict[str, Rule] = {full: ONE, free: THREE}
    first = await take_each(counters, rules, now_ms=NOW)
    second = await take_each(counters, rules, now_ms=NOW)
    free_after = await counters.peek(free, now_ms=NOW)

    assert [tally.taken for tally in first.values()] == [True, True]
    assert not second[full].taken
    assert (free_after.count, free_after.next_ms) == (1, 0)

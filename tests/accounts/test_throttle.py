"""Guessing is slowed on several axes; nobody evades them, and nobody is locked out by others."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from stormcellar.accounts.throttle import Admission, Rules, Throttle, counters_of
from stormcellar.errors import Throttled
from stormcellar.stores import Counters, StoreUnavailable
from stormcellar.stores.memory import MemoryStore
from tests.support.fakes import START_S, Clock, SteeredStore

KEY = b"a key for the throttle, 32 bytes."
HERE, THERE = "192.0.2.7", "198.51.100.9"
MINUTE, HOUR = 60, 3600


class Desk:
    """A throttle on a steered memory store, with a clock that begins at a full hour."""

    def __init__(self, **rules: int) -> None:
        self.clock = Clock(1_900_000_800.0)
        self.store = SteeredStore(MemoryStore())
        self.throttle = Throttle(self.store.counters(), key=KEY, rules=Rules(**rules), clock=self.clock)

    async def fails(self, name: str = "alice", address: str = HERE, times: int = 1) -> None:
        """Make *times* tries that are admitted and fail."""
        for _ in range(times):
            await self.throttle.admit(name, address)

    async def succeeds(self, name: str = "alice", address: str = HERE) -> None:
        """Make a try that is admitted and succeeds."""
        await self.throttle.record_success(await self.throttle.admit(name, address))

    async def wait_s(self, name: str = "alice", address: str = HERE) -> int:
        """Return the seconds that a try is told to wait, 0 if it is admitted (and then not made)."""
        try:
            admission = await self.throttle.admit(name, address)
        except Throttled as refused:
            return refused.retry_after_s
        await self.throttle.give_back(admission)
        return 0

    async def everywhere(self, name: str, times: int) -> None:
        """Fail *times* on one account, each from an address of its own."""
        for number in range(times):
            await self.fails(name, f"203.0.{number // 250}.{number % 250}")


def test_limits_below_one_are_refused() -> None:
    """A throttle that admits nobody is a mistake in the configuration."""
    for name in Rules.__dataclass_fields__:
        with pytest.raises(ValueError, match=name):
            Rules(**{name: 0})


@pytest.mark.gen_test
async def test_five_are_free_then_the_wait_doubles_up_to_a_quarter_of_an_hour() -> None:
    """One account, one address: after the fifth 10 s, then twice as long each time, at most 15 min."""  # E9
    desk = Desk()
    await desk.fails(times=4)
    waits = [await desk.wait_s()]
    for _ in range(9):
        await desk.fails()
        waits.append(await desk.wait_s())
        desk.clock.advance(waits[-1])

    assert waits == [0, 10, 20, 40, 80, 160, 320, 640, 900, 900]


@pytest.mark.gen_test
async def test_retry_after_is_true() -> None:
    """It counts down in whole seconds, rounded up and never 0; at its end a try is admitted."""  # E9
    desk = Desk()
    await desk.fails(times=5)

    told = []
    for advance_s in (0.0, 0.001, 0.998, 0.002, 8.9985):
        desk.clock.advance(advance_s)
        told.append(await desk.wait_s())
    desk.clock.advance(told[-1])

    assert told == [10, 10, 10, 9, 1]
    assert await desk.wait_s() == 0


@pytest.mark.gen_test
async def test_hammering_neither_prolongs_the_wait_nor_is_counted() -> None:
    """Refused tries leave every tally as it was, so they cost their author's address nothing more."""  # E10
    desk = Desk(attempts_per_address=6)
    await desk.fails(times=5)

    refused = [await desk.wait_s() for _ in range(50)]
    others = await desk.wait_s("bob")

    assert refused == [10] * 50
    assert others == 0
    desk.clock.advance(10)
    assert await desk.wait_s() == 0


@pytest.mark.gen_test
async def test_pair_is_forgotten_after_an_hour_without_a_failure() -> None:
    """An hour after the last failure all five are free again, a second before they are not."""  # E9
    desk = Desk()
    await desk.fails(times=5)
    desk.clock.advance(HOUR - 1)
    await desk.fails()
    before = await desk.wait_s()

    desk.clock.advance(HOUR)
    await desk.fails(times=4)

    assert before == 20
    assert await desk.wait_s() == 0


@pytest.mark.gen_test
async def test_success_forgets_the_failures_of_the_pair() -> None:
    """Whoever mistypes four times and then signs in has all five again, however often."""  # E10
    desk = Desk()

    for _ in range(5):
        await desk.fails(times=4)
        await desk.succeeds()

    assert await desk.wait_s() == 0


@pytest.mark.gen_test
async def test_successes_count_nowhere() -> None:
    """A hundred who sign in from one address, or on one account, leave every axis as it was."""  # E10
    desk = Desk(attempts_per_address=3, soft_per_account=3, soft_overall=3)

    for number in range(100):
        await desk.succeeds(f"user{number}", HERE)
        await desk.succeeds("alice", f"198.51.100.{number}")

    await desk.fails("alice", times=2)
    assert await desk.wait_s("alice") == 0


@pytest.mark.gen_test
async def test_address_that_tries_many_accounts_has_to_wait() -> None:
    """After fifty failures the address waits whatever the account; other addresses do not."""  # E9
    desk = Desk()
    for number in range(50):
        await desk.fails(f"user{number}")

    waits = [await desk.wait_s("fresh"), await desk.wait_s("fresh", THERE)]
    desk.clock.advance(10)
    for number in range(6):
        await desk.fails(f"more{number}")
        waits.append(await desk.wait_s("fresh"))
        desk.clock.advance(waits[-1])

    assert waits == [10, 0, 20, 40, 80, 160, 300, 300]


@pytest.mark.gen_test
async def test_own_account_does_not_reset_the_delay_of_an_address() -> None:
    """Whoever signs in to an account of their own between guesses waits as long as without."""  # E9
    desk = Desk(attempts_per_address=3)
    await desk.fails("a")
    await desk.fails("b")
    await desk.succeeds("own")
    await desk.fails("c")
    waits = [await desk.wait_s("own")]
    for name in ("d", "e", "f"):
        desk.clock.advance(waits[-1])
        await desk.succeeds("own")
        await desk.fails(name)
        waits.append(await desk.wait_s("own"))

    assert waits == [10, 20, 40, 80]


@pytest.mark.gen_test
async def test_refusal_by_the_address_costs_the_account_nothing() -> None:
    """What is tried during the wait of an address is given back to the account: none is lost to it."""  # E10
    desk = Desk(attempts=1, attempts_per_address=1)
    for name, wait_s in (("a", 10), ("b", 20), ("c", 40), ("d", 0)):
        await desk.fails(name)
        desk.clock.advance(wait_s)

    refused = []
    for _ in range(8):
        refused.append(await desk.wait_s("alice"))
        desk.clock.advance(10)

    assert refused == [80, 70, 60, 50, 40, 30, 20, 10]
    assert await desk.wait_s("alice") == 0


@pytest.mark.gen_test
async def test_the_longer_of_two_waits_is_told() -> None:
    """Where pair and address both refuse, Retry-After is when the last of them no longer does."""  # E9
    address_later, pair_later = (
        Desk(attempts=2, attempts_per_address=3),
        Desk(attempts=1, attempts_per_address=2),
    )
    await address_later.fails("alice", times=2)
    address_later.clock.advance(5)
    await address_later.fails("bob")
    await pair_later.fails("alice")
    pair_later.clock.advance(10)
    await pair_later.fails("alice")

    assert (await address_later.wait_s("alice"), await address_later.wait_s("carol")) == (10, 10)
    assert (await pair_later.wait_s("alice"), await pair_later.wait_s("carol")) == (20, 10)


@pytest.mark.gen_test
async def test_many_addresses_on_one_account_have_one_try_each() -> None:
    """Beyond thirty failures in an hour each new pair of that account, and no other, has one try."""  # E9
    desk = Desk()
    await desk.everywhere("alice", 29)
    await desk.fails("alice", THERE)
    waits = [await desk.wait_s("alice", THERE)]
    await desk.fails("alice", HERE)
    waits += [await desk.wait_s("alice", HERE), await desk.wait_s("bob", HERE)]
    await desk.fails("bob", HERE)
    waits.append(await desk.wait_s("bob", HERE))

    desk.clock.advance(HOUR)

    assert waits == [0, 10, 0, 0]
    await desk.fails("alice", HERE, times=4)
    assert await desk.wait_s("alice", HERE) == 0


@pytest.mark.gen_test
async def test_guessing_everywhere_slows_everyone_and_refuses_no_first_try() -> None:
    """Beyond a thousand failures in an hour every pair has one free try, every address ten."""  # E9, E10
    desk = Desk()
    for number in range(1000):
        await desk.fails(f"user{number % 300}", f"203.0.{number // 250}.{number % 250}")

    firsts = [await desk.wait_s(name, THERE) for name in ("alice", "bob")]
    await desk.fails("alice", THERE)
    second = await desk.wait_s("alice", THERE)
    for number in range(9):
        await desk.fails(f"other{number}", THERE)
    eleventh = await desk.wait_s("bob", THERE)

    assert (firsts, second, eleventh) == ([0, 0], 10, 10)
    desk.clock.advance(HOUR)
    assert await desk.wait_s("alice", THERE) == 0


@pytest.mark.gen_test
async def test_failures_that_come_slowly_make_nobody_wary() -> None:
    """The soft limits are for an hour: two failures in each, for a day, tighten nothing."""  # E10
    desk = Desk(soft_per_account=3, soft_overall=3)
    for number in range(48):
        await desk.fails("alice", f"203.0.113.{number}")
        desk.clock.advance(30 * MINUTE)

    await desk.fails("alice", HERE)

    assert await desk.wait_s("alice", HERE) == 0


@pytest.mark.gen_test
async def test_refused_tries_make_nobody_wary() -> None:
    """Hammering a pair, or from an address, that has to wait does not tighten the axes of others."""  # E10
    desk = Desk(soft_per_account=6, soft_overall=6)
    await desk.fails("alice", HERE, times=5)

    await asyncio.gather(*(desk.wait_s("alice", HERE) for _ in range(200)))

    await desk.fails("bob", THERE, times=1)
    assert await desk.wait_s("carol", "192.0.2.99") == 0
    desk.clock.advance(HOUR)
    await desk.fails("alice", THERE, times=4)
    assert await desk.wait_s("alice", THERE) == 0


@pytest.mark.gen_test
async def test_hundred_parallel_tries_admit_five() -> None:
    """However many come at once, as many as are free are admitted."""  # D6, E9
    desk = Desk()

    answers = await asyncio.gather(
        *(desk.throttle.admit("alice", HERE) for _ in range(100)), return_exceptions=True
    )

    assert [type(answer) for answer in answers].count(Admission) == 5
    assert {answer.retry_after_s for answer in answers if isinstance(answer, Throttled)} == {10}


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "spelling",
    [
        *("ALICE", "Alice", "\uff41\uff4c\uff49\uff43\uff45", "\u24d0lice", "al\u2170ce", "\U0001d44elice"),
        *("ALI\u212d\uff25", " alice "),
    ],
    ids=ascii,
)
async def test_other_spellings_are_the_same_account(spelling: str) -> None:
    """What accounts take for one name counts as one: case, full width, circled letters and more."""  # E11
    desk = Desk()
    await desk.fails("alice", times=3)
    await desk.fails(spelling, times=2)

    assert await desk.wait_s("alice") == 10
    assert await desk.wait_s(spelling) == 10


@pytest.mark.gen_test
async def test_names_that_no_account_has_share_one_tally() -> None:
    """Spaces within, look-alikes of other scripts, endless and ill-formed names have one key."""  # E11
    desk = Desk()
    names = ["al ice", "ali\u200bce", "al\u0456ce", "\u0430lice", "a\0", "a" * 100_000, "\ud800", "", "a b"]

    for name in names[:5]:
        await desk.fails(name)

    assert [await desk.wait_s(name) for name in names] == [10] * len(names)
    assert await desk.wait_s("alice") == 0


class Watched(MemoryStore):
    """A store whose tallies can be looked at."""

    def keys(self) -> list[str]:
        """Return the key of every tally."""
        tallies = self.counters()
        return [*tallies._free, *tallies._waiting]


@pytest.mark.gen_test
async def test_keys_tell_neither_name_nor_address() -> None:
    """Each key is 43 characters of a keyed hash, another one under another key."""  # E11, I6
    keys = []
    for key in (KEY, b"another key for the throttle, 32"):
        store = Watched()
        throttle = Throttle(store.counters(), key=key, clock=Clock())
        await throttle.admit("correct horse battery staple", HERE)
        await throttle.admit("alice", HERE)
        keys.append(set(store.keys()))

    assert [len(each) for each in keys] == [8, 8]
    assert keys[0] & keys[1] == set()
    assert {len(key) for each in keys for key in each} == {43}


def test_fingerprint_recognises_a_name_without_telling_it() -> None:
    """Twelve hexadecimal digits, the same for each spelling, others under another key."""  # I6
    first, second = Desk().throttle, Throttle(MemoryStore().counters(), key=b"x" * 32)

    assert first.fingerprint("Alice") == first.fingerprint("alice")
    prints = {first.fingerprint("alice"), first.fingerprint("my password"), second.fingerprint("alice")}
    assert {len(each) for each in prints} == {12}
    assert len(prints) == 3
    assert first.fingerprint("\ud800") != first.fingerprint("\udfff")


@pytest.mark.gen_test
@pytest.mark.parametrize("call", ["peek", "take"])
async def test_store_that_is_down_admits_nobody(call: str) -> None:
    """A try that cannot be counted is not made."""  # E12
    desk = Desk()
    desk.store.fail[call] = StoreUnavailable(call)

    with pytest.raises(StoreUnavailable):
        await desk.throttle.admit("alice", HERE)


@pytest.mark.gen_test
@pytest.mark.parametrize("step", ["record_success", "give_back"])
async def test_charge_that_cannot_be_returned_stays_and_is_told(
    step: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that fails after the password was checked changes no answer; the log says what stays."""
    desk = Desk(attempts_per_address=2)
    admission = await desk.throttle.admit("alice", HERE)
    for call in ("forget", "give_back"):
        desk.store.fail[call] = StoreUnavailable("down")

    await getattr(desk.throttle, step)(admission)

    desk.store.fail.clear()
    await desk.fails("bob")
    assert await desk.wait_s("carol") == 10
    assert set(caplog.messages) == {"a sign-in attempt stays counted: down"}


@pytest.mark.gen_test
async def test_given_back_is_as_if_never_made() -> None:
    """A try that was not made leaves every axis, and a wait that was over, as they were."""  # E10
    desk = Desk(attempts=1, attempts_per_address=1, soft_per_account=2, soft_overall=2)
    await desk.fails()
    desk.clock.advance(10)

    for _ in range(30):
        await desk.throttle.give_back(await desk.throttle.admit("alice", HERE))

    await desk.fails()
    assert await desk.wait_s() == 20


@pytest.mark.gen_test
async def test_all_processes_count_together() -> None:
    """Two throttles with one key on one store share every tally."""  # E12
    desk = Desk()
    other = Throttle(desk.store.counters(), key=KEY, clock=desk.clock)
    await desk.fails(times=3)
    for _ in range(2):
        await other.admit("alice", HERE)

    with pytest.raises(Throttled):
        await other.admit("alice", HERE)
    assert await desk.wait_s() == 10


class Countless(SteeredStore):
    """A store without counters."""

    def counters(self) -> Any:
        """Return none."""


@pytest.mark.gen_test
async def test_store_without_counters_is_made_up_for(caplog: pytest.LogCaptureFixture) -> None:
    """Failures on such a store are counted in this process, and the log says so once."""  # E9
    with caplog.at_level(logging.WARNING):
        counters = counters_of(Countless(MemoryStore()))
    throttle = Throttle(counters, key=KEY, rules=Rules(attempts=1), clock=Clock())
    await throttle.admit("alice", HERE)

    with pytest.raises(Throttled):
        await throttle.admit("alice", HERE)
    assert caplog.messages == [
        "Countless has no counters: each process counts failed sign-ins alone, until it ends"
    ]


def test_counters_of_a_store_are_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """A store that keeps counters is taken at its word, without a warning."""
    store = MemoryStore()

    counters: Counters = counters_of(store)

    assert counters is store.counters()
    assert caplog.messages == []


@pytest.mark.gen_test
async def test_processes_whose_clocks_differ_count_alike() -> None:  # D6, E9
    """The soft tallies go up by each failure, also where the other process is seconds ahead."""
    counters, clocks = MemoryStore().counters(), (Clock(), Clock(START_S + 3))
    throttles = [Throttle(counters, key=KEY, rules=Rules(attempts=1000), clock=clock) for clock in clocks]
    for number in range(30):
        await throttles[number % 2].admit("alice", f"192.0.2.{number}")

    first = await throttles[0].admit("alice", "198.51.100.1")
    with pytest.raises(Throttled):
        await throttles[0].admit("alice", "198.51.100.1")
    assert first.charged

"""A password is checked no oftener than the throttle allows, and what came of it is told without secrets."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from stormcellar.accounts.authenticator import Authenticator
from stormcellar.accounts.throttle import Rules, Throttle
from stormcellar.errors import Busy, PasswordRefused, Throttled
from stormcellar.events import Event, Events, Kind
from stormcellar.stores import Store, StoreUnavailable
from stormcellar.stores.memory import MemoryStore
from tests.support.fakes import Clock, Gate, SteeredStore

KEY = b"a key for the throttle, 32 bytes."
HERE, THERE = "192.0.2.7", "198.51.100.9"
RIGHT, WRONG = "right horse", "wrong horse"


class Directory:
    """Accounts with one password, which counts how often it was looked at and may be held or full."""

    def __init__(self, *users: str) -> None:
        self.users = set(users)
        self.looked_at = 0
        self.gate: Gate | None = None
        self.is_full = False
        self.changed_ms = 0

    async def verify(self, name: str, password: str) -> str | None:
        """Return the user, after the gate if there is one."""
        if self.is_full:
            raise Busy("full")
        self.looked_at += 1
        if self.gate is not None:
            await self.gate.arrive()
        user = name.lower()
        return user if user in self.users and password == RIGHT else None

    def valid_after(self, user: str) -> int | None:
        """Return when the account was changed last."""
        return self.changed_ms if user in self.users else None

    def account_id(self, user: str) -> str | None:
        """Return the ID of the account: the same for all."""
        return "id" if user in self.users else None

    async def set_password(self, user: str, new: str, *, verified_ms: int) -> int:
        """Refuse: there is one password here."""
        raise PasswordRefused("no other password will do")


class Desk:
    """An authenticator over a steered store, with every event it emits."""

    def __init__(self, store: Store | None = None, **rules: int) -> None:
        self.clock = Clock()
        self.store = SteeredStore(store or MemoryStore())
        self.directory = Directory("alice", "bob")
        self.throttle = Throttle(self.store.counters(), key=KEY, rules=Rules(**rules), clock=self.clock)
        self.told: list[Event] = []
        events = Events(self.throttle.now_ms)
        events.subscribe(self.told.append)
        self.authenticator = Authenticator(self.directory, self.throttle, events)

    async def check(self, name: str = "alice", password: str = WRONG, address: str = HERE) -> str | None:
        """Check a password."""
        return await self.authenticator.check(name, password, address=address)

    async def fails(self, times: int, name: str = "alice", address: str = HERE) -> None:
        """Give a wrong password *times*."""
        for _ in range(times):
            assert await self.check(name, address=address) is None


@pytest.mark.gen_test
async def test_right_password_gives_the_user_and_no_event() -> None:
    """The name comes back as the accounts know it; who signs in is told by the session."""
    desk = Desk()

    assert await desk.check("Alice", RIGHT) == "alice"
    assert desk.told == []


@pytest.mark.gen_test
async def test_throttled_address_is_refused_with_the_right_password_too() -> None:
    """After five failures nothing is looked at until the wait is over; then all is as ever."""  # E9
    desk = Desk()
    await desk.fails(5)

    with pytest.raises(Throttled) as refused:
        await desk.check("alice", RIGHT)

    assert (refused.value.retry_after_s, desk.directory.looked_at) == (10, 5)
    desk.clock.advance(10)
    assert await desk.check("alice", RIGHT) == "alice"


@pytest.mark.gen_test
async def test_victim_signs_in_from_elsewhere_amid_an_attack() -> None:
    """Hundreds of failures from many addresses leave the owner of the account a way in."""  # E10
    desk = Desk(soft_per_account=10, soft_overall=20)
    assert await desk.check("alice", RIGHT, THERE) == "alice"
    for number in range(300):
        with suppress(Throttled):
            await desk.fails(1, "alice", f"203.0.{number % 3}.{number}")

    assert await desk.check("alice", RIGHT, THERE) == "alice"


@pytest.mark.gen_test
async def test_sign_ins_without_failures_are_never_refused() -> None:
    """Two hundred sign-ins in a row from one address are all admitted."""  # E10
    desk = Desk()

    assert [await desk.check("alice", RIGHT) for _ in range(200)] == ["alice"] * 200


@pytest.mark.gen_test
async def test_hundred_parallel_guesses_cost_five_hashes(store: Store) -> None:
    """On one account, from one address, five are looked at; the others are told to wait."""  # D6, E9, H6
    desk = Desk(store)

    answers = await asyncio.gather(*(desk.check() for _ in range(100)), return_exceptions=True)

    refused = [answer for answer in answers if isinstance(answer, Throttled)]
    assert (desk.directory.looked_at, answers.count(None), len(refused)) == (5, 5, 95)
    assert {answer.retry_after_s for answer in refused} == {10}


@pytest.mark.gen_test
async def test_processes_share_what_they_counted(store: Store) -> None:
    """Five failures at one process are five at the next, and a restart forgets none."""  # E12
    await Desk(store).fails(3)
    await Desk(store).fails(2)
    third = Desk(store)

    with pytest.raises(Throttled):
        await third.check("alice", RIGHT)
    assert third.directory.looked_at == 0


@pytest.mark.gen_test
@pytest.mark.parametrize("call", ["peek", "take"])
async def test_nothing_is_looked_at_while_the_store_is_down(call: str) -> None:
    """What cannot be counted is not tried, right or wrong; and it is no failed sign-in."""  # E12
    desk = Desk()
    desk.store.fail[call] = StoreUnavailable(call)

    for password in (RIGHT, WRONG):
        with pytest.raises(StoreUnavailable):
            await desk.check("alice", password)

    assert (desk.directory.looked_at, desk.told) == (0, [])


@pytest.mark.gen_test
async def test_busy_counts_as_never_tried() -> None:
    """However often there is no room to verify, nobody comes nearer to a limit."""  # E10
    desk = Desk(attempts=3, attempts_per_address=3, soft_per_account=3, soft_overall=3)
    desk.directory.is_full = True
    for _ in range(20):
        with pytest.raises(Busy):
            await desk.check()
    desk.directory.is_full = False

    await desk.fails(2)

    assert await desk.check("alice", RIGHT) == "alice"
    assert [event.kind for event in desk.told] == [Kind.SIGN_IN_FAILED] * 2


@pytest.mark.gen_test
async def test_hanging_up_does_not_make_a_guess_free() -> None:
    """A try whose caller was cancelled while it was verified stays counted."""  # E9
    desk = Desk(attempts=2)
    for _ in range(2):
        desk.directory.gate = Gate()
        guess = asyncio.create_task(desk.check())
        await desk.directory.gate.reached()
        guess.cancel()
        await asyncio.gather(guess, return_exceptions=True)
    desk.directory.gate = None

    with pytest.raises(Throttled):
        await desk.check("alice", RIGHT)
    assert desk.directory.looked_at == 2


@pytest.mark.gen_test
async def test_try_is_counted_before_it_is_verified() -> None:
    """While one is being verified the next is refused already, if the limit is one."""  # D6
    desk = Desk(attempts=1)
    desk.directory.gate = gate = Gate()
    guess = asyncio.create_task(desk.check())
    await gate.reached()

    with pytest.raises(Throttled):
        await desk.check("alice", RIGHT)
    gate.open()

    assert await guess is None
    assert desk.directory.looked_at == 1


@pytest.mark.gen_test
async def test_failures_of_an_account_name_it() -> None:
    """A wrong password, and a try too many, are told with the account as it is known."""  # I1, I6
    desk = Desk(attempts=1)
    await desk.fails(1, "ALICE")
    with pytest.raises(Throttled):
        await desk.check("Alice", RIGHT)

    at_ms = desk.throttle.now_ms()
    assert desk.told == [
        Event(Kind.SIGN_IN_FAILED, at_ms, user="alice", address=HERE),
        Event(Kind.SIGN_IN_THROTTLED, at_ms, user="alice", address=HERE),
    ]


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["hunter2hunter2", "My Secret!", "", "\ud800", "a" * 10_000], ids=range(5))
async def test_names_that_nobody_has_are_not_told(name: str) -> None:
    """What may be a password typed in the wrong field is told by twelve digits of a keyed hash."""  # I6
    desk = Desk(attempts=1)
    await desk.fails(1, name)
    with pytest.raises(Throttled):
        await desk.check(name)

    reason = f"unknown:{desk.throttle.fingerprint(name)}"
    at_ms = desk.throttle.now_ms()
    assert desk.told == [
        Event(Kind.SIGN_IN_FAILED, at_ms, address=HERE, reason=reason),
        Event(Kind.SIGN_IN_THROTTLED, at_ms, address=HERE, reason=reason),
    ]
    assert len(reason) == len("unknown:") + 12


@pytest.mark.gen_test
async def test_failures_of_an_account_start_again_when_it_changes() -> None:
    """With a new password, an operator lets an owner in who has no known address."""  # E10
    desk = Desk(attempts_per_account=1)
    await desk.fails(1)
    with pytest.raises(Throttled):
        await desk.check("alice", RIGHT, THERE)

    desk.directory.changed_ms += 1

    assert await desk.check("alice", RIGHT, THERE) == "alice"


@pytest.mark.gen_test
async def test_device_is_known_until_the_account_changes() -> None:
    """A client without a token gets one, keeps it, and signs in with it amid an attack."""  # E10
    desk = Desk(attempts_per_account=1)
    token = await desk.authenticator.remember("alice", None)
    assert token is not None
    kept = await desk.authenticator.remember("alice", token)
    for _ in range(2):
        await desk.fails(1, address=HERE)
        known = await desk.authenticator.check("alice", RIGHT, address=THERE, device=token)
        assert known == "alice"

    desk.directory.changed_ms += 1
    await desk.fails(1, address=HERE)

    assert (kept, len(token)) == (token, 22)
    with pytest.raises(Throttled):
        await desk.authenticator.check("alice", RIGHT, address="203.0.113.9", device=token)


@pytest.mark.gen_test
async def test_unknown_and_known_names_are_throttled_alike() -> None:
    """Neither the limit nor the wait tells whether an account exists."""  # E1
    desk = Desk()
    waits = []
    for name in ("alice", "mallory"):
        await desk.fails(5, name, THERE if name == "alice" else HERE)
        with pytest.raises(Throttled) as refused:
            await desk.check(name, address=THERE if name == "alice" else HERE)
        waits.append(refused.value.retry_after_s)

    assert waits == [10, 10]

"""Requests that meet: on memory, and with two processes' connections on real Redis and MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from stormcellar import Lifetime, SessionChanged, SessionEnded
from stormcellar.sessions.request_info import CookieChange, Presence
from stormcellar.sessions.session import state_of
from stormcellar.stores import Store, open_store
from stormcellar.stores.memory import MemoryStore
from tests.support.core import SAFE, Core, Visitor
from tests.support.fakes import Clock

ROUNDS = 20


@dataclass
class Processes:
    """Two processes on one store, with one clock."""

    stores: tuple[Store, Store]
    clock: Clock

    def start(self, **options: Any) -> tuple[Core, Core]:
        """Start both."""
        first, second = (Core(store, clock=self.clock, **options) for store in self.stores)
        return first, second


@pytest.fixture(params=["memory", "sqlite", "redis8", "mongo_rs"])
def processes(request: pytest.FixtureRequest, io_loop: IOLoop) -> Iterator[Processes]:
    """Two processes on an empty store of each kind."""
    stores = opened(request)
    yield Processes((stores[0], stores[-1]), Clock())
    for store in stores:
        io_loop.run_sync(store.aclose)


def opened(request: pytest.FixtureRequest) -> list[Store]:
    """Open a store once for each process; the one in memory is shared by being the same."""
    if request.param == "memory":
        return [MemoryStore()]
    backend, prefix = request.getfixturevalue(request.param), f"race-{token_hex(6)}"
    return [open_store(backend.url, prefix=prefix, timeout_s=10, connect_timeout_s=10) for _ in range(2)]


@pytest.fixture
def cores(processes: Processes) -> tuple[Core, Core]:
    """Two processes with the default limits."""
    return processes.start()


async def outcome(work: Callable[[], Any]) -> str:
    """Return what became of *work*, as the client would see it."""
    try:
        await work()
    except (SessionChanged, SessionEnded) as exc:
        return exc.code
    return "saved"


@pytest.mark.gen_test
async def test_sign_out_is_final_against_writers_in_flight(cores: tuple[Core, Core]) -> None:  # C5, D1, D11
    """Whatever requests were at work, after a sign-out nothing is stored and no cookie works."""
    here, there = cores
    left: list[Any] = []

    for _ in range(ROUNDS):
        visitor = Visitor(here)
        await visitor.signs_in("ada")
        writers = [await visitor.twin(core).request() for core in (here, there) for _ in range(4)]
        leaving = await visitor.request()
        for n, writer in enumerate(writers):
            writer["late"] = n
        results = await asyncio.gather(
            *(outcome(writer.commit) for writer in writers[:4]),
            leaving.logout(),
            *(outcome(writer.commit) for writer in writers[4:]),
        )
        late = [
            state_of(writer).cookie for writer in writers if state_of(writer).cookie is not CookieChange.KEEP
        ]
        left += [*await here.everything(), *await there.everything(), *late]
        assert set(results) <= {"saved", "session_changed", None}

    assert left == []


@pytest.mark.gen_test
async def test_a_slow_writer_cannot_bring_a_session_back(cores: tuple[Core, Core]) -> None:  # C5, D1, D11
    """A save that was under way before the sign-out and arrives after it makes no record and no cookie."""
    here, there = cores
    visitor = Visitor(here)
    await visitor.signs_in("ada")
    slow = await visitor.twin(there).request()
    slow["late"] = 1
    gate = there.store.gate("apply")

    saving = asyncio.create_task(outcome(slow.commit))
    await gate.reached()
    await (await visitor.request()).logout()
    gate.open()

    assert (await saving, state_of(slow).cookie) == ("session_changed", CookieChange.KEEP)
    assert await here.everything() == []


@pytest.mark.gen_test
async def test_a_slow_writer_cannot_write_after_a_rotation(cores: tuple[Core, Core]) -> None:  # C1, D2, D11
    """A request that began before the sign-in, and saves after it, changes nothing and sets no cookie."""
    here, there = cores
    visitor = Visitor(here)
    await visitor.writes(cart=["apples"])
    slow = await visitor.twin(there).request()
    slow["role"] = "admin"
    gate = there.store.gate("apply")

    saving = asyncio.create_task(outcome(slow.commit))
    await gate.reached()
    await visitor.signs_in("ada", keep={"cart"})
    await visitor.writes(fresh=True)
    gate.open()

    assert (await saving, state_of(slow).cookie) == ("session_changed", CookieChange.KEEP)
    assert await visitor.reads() == {"cart": ["apples"], "fresh": True}


@pytest.mark.gen_test
async def test_what_is_planted_during_a_sign_in_does_not_survive(cores: tuple[Core, Core]) -> None:  # C1, C3
    """A key written with the old ID after the sign-in loaded the session is dropped with the rest."""
    here, there = cores
    visitor = Visitor(here)
    await visitor.writes(cart=["apples"])
    attacker = visitor.twin(there)
    session = await visitor.request()
    gate = here.store.gate("rotate")

    signing_in = asyncio.create_task(session.login("ada", keep={"cart"}))
    await gate.reached()
    await attacker.writes(role="admin")
    gate.open()
    await signing_in
    visitor.take(session)

    assert await visitor.reads() == {"cart": ["apples"]}
    assert (await attacker.request()).user is None


@pytest.mark.gen_test
async def test_twenty_sign_ins_at_once_leave_exactly_the_bound(processes: Processes) -> None:  # C12, D11
    """However sign-ins of one user meet, as many of their sessions live as are allowed, the newest ones."""
    here, there = processes.start(lifetime=Lifetime(max_per_user=3))
    visitors = [Visitor(core) for core in (here, there) for _ in range(10)]

    sessions = await asyncio.gather(*(visitor.signs_in("ada") for visitor in visitors))
    left = await here.manager.of_user("ada")
    newest = sorted((session.handle for session in sessions if session.handle), reverse=True)[:3]
    signed_in = [visitor for visitor in visitors if (await visitor.request(SAFE)).user == "ada"]

    assert [record.handle for record in left] == newest
    assert len(signed_in) == 3


@pytest.mark.gen_test
async def test_a_double_click_makes_two_whole_sessions(cores: tuple[Core, Core]) -> None:  # D5, C3
    """The sign-in that comes second finds the ID changed, and gets an empty session of its own."""
    here, there = cores
    visitor, second = Visitor(here), Visitor(there)
    await visitor.writes(cart=["apples"])
    second.sid = visitor.sid
    first_click, second_click = await visitor.request(), await second.request()
    second_click["note"] = "written by the second"
    gate = there.store.gate("rotate")

    clicking = asyncio.create_task(second_click.login("ada", keep={"cart", "note"}))
    await gate.reached()
    await first_click.login("ada", keep={"cart", "note"})
    gate.open()
    await clicking
    visitor.take(first_click)
    second.take(second_click)

    assert (await visitor.reads(), await second.reads()) == ({"cart": ["apples"]}, {})
    assert [(await each.request()).user for each in (visitor, second)] == ["ada", "ada"]
    assert visitor.sid is not None and second.sid is not None
    assert visitor.sid.handle != second.sid.handle


@pytest.mark.gen_test
async def test_a_sign_in_after_a_sign_out_elsewhere_is_a_new_session(cores: tuple[Core, Core]) -> None:  # D1
    """If the session ends while the password is checked, its handle does not come back."""
    here, there = cores
    visitor = Visitor(here)
    await visitor.writes(cart=["apples"])
    old = visitor.sid
    session = await visitor.request()

    await (await visitor.twin(there).request()).logout()
    await session.login("ada", keep={"cart"})
    visitor.take(session)

    assert old is not None and visitor.sid is not None
    assert visitor.sid.handle != old.handle
    assert await visitor.reads() == {}


@pytest.mark.gen_test
async def test_parallel_sign_ins_of_one_browser_have_one_heir(cores: tuple[Core, Core]) -> None:  # D2, D5
    """Of ten sign-ins with one cookie one takes the session over, and every one is signed in."""
    here, there = cores
    visitor = Visitor(here)
    await visitor.writes(cart=["apples"])
    clicks = [visitor.twin(core) for core in (here, there) for _ in range(5)]
    sessions = [await click.request() for click in clicks]

    await asyncio.gather(*(session.login("ada", keep={"cart"}) for session in sessions))
    for click, session in zip(clicks, sessions, strict=True):
        click.take(session)

    assert sorted([len(await click.reads()) for click in clicks]) == [0] * 9 + [1]
    assert {(await click.request()).user for click in clicks} == {"ada"}


@pytest.mark.gen_test
async def test_parallel_writers_of_different_keys_lose_nothing(cores: tuple[Core, Core]) -> None:  # D3, D11
    """Each of thirty requests, in two processes, finds its own value saved beside the others'."""
    here, there = cores
    visitor = Visitor(here)
    await visitor.writes(first=0)
    sessions = [await visitor.twin(core).request() for core in (here, there) for _ in range(15)]
    for n, session in enumerate(sessions):
        session[f"k{n}"] = n

    await asyncio.gather(*(session.commit() for session in sessions))

    assert await visitor.reads() == {"first": 0} | {f"k{n}": n for n in range(30)}


@pytest.mark.gen_test
async def test_counters_of_two_processes_count_every_step(cores: tuple[Core, Core]) -> None:  # D3, D11
    """Twenty parallel increments, ten in each process, make twenty, and each saw a number of its own."""
    here, there = cores
    visitor = Visitor(here)
    await visitor.writes(n=0)
    sessions = [await visitor.twin(core).request() for core in (here, there) for _ in range(10)]

    seen = await asyncio.gather(*(session.modify("n", lambda n: n + 1) for session in sessions))

    assert sorted(seen) == list(range(1, 21))
    assert await visitor.reads() == {"n": 20}


@pytest.mark.gen_test
async def test_what_one_process_does_the_other_sees_at_once(cores: tuple[Core, Core]) -> None:  # C8, D11
    """A sign-in, a write, a revocation and a sign-out in one process hold in the other's next request."""
    here, there = cores
    visitor, other = Visitor(here), Visitor(here)
    await visitor.signs_in("ada")
    await other.signs_in("ada")

    await visitor.writes(a=1)
    seen = await visitor.twin(there).reads()
    assert other.sid is not None
    revoked = await there.manager.revoke("ada", other.sid.handle)
    after_revocation = state_of(await other.request()).presence
    await (await visitor.twin(there).request()).logout()

    assert (seen, revoked) == ({"a": 1}, True)
    assert (after_revocation, state_of(await visitor.request()).presence) == (
        Presence.LATE,
        Presence.LATE,
    )


@pytest.mark.gen_test
async def test_a_sign_out_that_began_before_a_rotation_ends_the_session(
    cores: tuple[Core, Core],
) -> None:  # C5, D2
    """Sign-out goes by the handle: it wins over a sign-in that changed the ID under way."""
    here, there = cores
    visitor = Visitor(here)
    await visitor.signs_in("ada")
    leaving = await visitor.twin(there).request()

    await visitor.signs_in("ada")
    await leaving.logout()

    assert state_of(await visitor.request()).presence is Presence.LATE
    assert await here.manager.of_user("ada") == []


@pytest.mark.gen_test
async def test_expiry_is_exact_on_every_store(cores: tuple[Core, Core]) -> None:  # B1, B5
    """Nothing depends on when the backend reaps: the millisecond decides, by the clock of the process."""
    here, there = cores
    visitor = Visitor(here)
    await visitor.signs_in("ada")

    here.clock.advance(1800 - 0.001)
    live = (state_of(await visitor.twin(there).request())).presence
    here.clock.advance(0.001)

    assert (live, (state_of(await visitor.twin(there).request())).presence) == (Presence.LIVE, Presence.NONE)

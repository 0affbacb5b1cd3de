"""`SessionManager`: loading, touching, and work in flight."""

from __future__ import annotations

import asyncio
import logging

import pytest

from stormcellar import SessionManager
from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.request_info import Presence
from stormcellar.sessions.session import state_of
from stormcellar.stores import StoreFull
from stormcellar.stores.errors import Problem
from stormcellar.stores.memory import MemoryStore
from tests.support.cookie_samples import Response
from tests.support.core import KEY, SAFE, UNSAFE, Core, Visitor
from tests.support.fakes import SteeredStore


@pytest.fixture
def core() -> Core:
    """A manager on an empty store."""
    return Core()


# --- set-up ---


def test_keys_and_name_are_checked_when_it_is_made() -> None:  # L1, L2, A14
    """There is no manager without keys of full length, nor with a cookie name that means something."""
    with pytest.raises(ValueError, match="signing keys"):
        SessionManager(MemoryStore(), secrets=[])
    with pytest.raises(ValueError, match="at least 32"):
        SessionManager(MemoryStore(), secrets=["short"])
    with pytest.raises(TypeError, match=r"store must be a Store, not str: write open_store\(url\)"):
        SessionManager("redis://127.0.0.1", secrets=[KEY])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cookie name"):
        SessionManager(MemoryStore(), secrets=[KEY], cookie_name="__Host-id")


def test_secure_decides_the_name_of_the_cookie() -> None:  # A4
    """With `secure` the cookies have the prefix by which browsers insist on Secure, no Domain and Path=/."""
    plain = SessionManager(MemoryStore(), secrets=[KEY]).cookies
    secure = SessionManager(MemoryStore(), secrets=[KEY], secure=True, cookie_name="sid").cookies

    assert (plain.name, plain.nonce_name) == ("id", "id-form")
    assert (secure.name, secure.nonce_name) == ("__Host-sid", "__Host-sid-form")


# --- load and touch ---


@pytest.mark.gen_test
async def test_a_request_costs_one_call_and_a_visitor_none(core: Core) -> None:  # A15, D4
    """Loading asks the store once, without a cookie not at all, and a read writes nothing."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    core.store.calls.clear()

    await Visitor(core).request(SAFE)
    session = await visitor.request(SAFE)
    core.manager.touch(state_of(session))
    await core.manager.drain()

    assert core.store.calls == {"load": 1}


@pytest.mark.gen_test
async def test_touches_are_throttled(core: Core) -> None:  # B7
    """Of reads every twenty seconds each third one slides the expiry; none of them writes data."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    core.store.calls.clear()

    for _ in range(9):
        core.clock.advance(20)
        core.manager.touch(state_of(await visitor.request(SAFE)))
        await core.manager.drain()
    record, now_ms = await core.stored(visitor.sid), core.manager.now_ms()

    assert core.store.calls == {"load": 9, "apply": 3}
    assert (record.seen_ms, record.expires_ms) == (now_ms, now_ms + 1_800_000)


@pytest.mark.gen_test
async def test_reading_alone_keeps_a_session_up_to_its_deadline(core: Core) -> None:  # B1, B2, B7
    """Touched every quarter of an hour a session lives for twelve hours; near its end nothing is written."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    core.store.calls.clear()

    for _ in range(47):
        core.clock.advance(900)
        core.manager.touch(state_of(await visitor.request(SAFE)))
        await core.manager.drain()
    core.clock.advance(900)

    assert core.store.calls == {"load": 47, "apply": 46}
    assert state_of(await visitor.request()).presence is Presence.NONE


@pytest.mark.gen_test
async def test_a_touch_that_comes_too_late_harms_nothing(core: Core) -> None:  # B7, D1
    """After a sign-out it brings nothing back; if the store fails, that is one line in the log."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    core.clock.advance(61)
    late, leaving = await visitor.request(SAFE), await visitor.request()
    await leaving.logout()

    core.manager.touch(state_of(late))
    await core.manager.drain()

    assert await core.everything() == []


@pytest.mark.gen_test
async def test_background_work_that_fails_is_logged(core: Core, caplog: pytest.LogCaptureFixture) -> None:
    """An outage is one warning with its reason, a bug a warning with its trace; neither stops the process."""

    async def bug() -> None:
        raise ZeroDivisionError("a bug")

    visitor = Visitor(core)
    await visitor.signs_in("ada")
    core.clock.advance(61)
    full = Problem("MongoDB has no space left", "make room on its disk")
    core.store.fail["apply"] = StoreFull("apply", full)

    with caplog.at_level(logging.WARNING, "stormcellar"):
        core.manager.touch(state_of(await visitor.request(SAFE)))
        core.manager.background.spawn(bug())
        await core.manager.drain()
    logged = {record.getMessage(): bool(record.exc_info) for record in caplog.records}

    assert logged == {
        "background work failed: StoreFull (MongoDB has no space left)": False,
        "background work failed: a bug": True,
    }


# --- shutdown ---


@pytest.mark.gen_test
async def test_closing_waits_for_the_work_in_flight() -> None:  # D12
    """`aclose` lets a save that is under way finish, and what that spawns; then it closes the store."""
    events: list[str] = []

    class Closing(SteeredStore):
        async def aclose(self) -> None:
            """Note when the store is closed."""
            events.append("closed")
            await super().aclose()

    store = Closing(MemoryStore())
    manager = SessionManager(store, secrets=[KEY])
    gate = store.gate("create")
    session = await manager.load(None, UNSAFE)
    session["a"] = 1

    async def save() -> None:
        await session.commit()
        events.append("saved")
        manager.background.spawn(later())

    async def later() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        events.append("later")

    manager.background.spawn(save())
    closing = asyncio.create_task(manager.aclose())
    await gate.reached()
    before = list(events)
    gate.open()
    await closing
    await manager.aclose()

    assert (before, events) == ([], ["saved", "later", "closed", "closed"])


@pytest.mark.gen_test
async def test_spawned_work_outlives_who_waits_for_it(core: Core) -> None:
    """Cancelling the request that waits does not cancel the save."""
    gate = core.store.gate("create")
    session = await core.manager.load(None, UNSAFE)
    session["a"] = 1

    async def waits() -> None:
        await asyncio.shield(core.manager.background.spawn(session.commit()))

    waiting = asyncio.create_task(waits())
    await gate.reached()
    waiting.cancel()
    gate.open()
    await core.manager.drain()

    assert len(await core.everything()) == 1


# --- keys that change ---


@pytest.mark.gen_test
async def test_keys_can_change_while_it_runs(core: Core) -> None:  # L4, L7
    """The new first key signs, what the old one signed counts as long as it is there, and no longer."""
    old, new = "o" * 40, "n" * 40
    core.manager.use_keys([old])
    line = Response()
    sid = SessionId.mint()
    core.manager.cookies.write(line, sid)
    presented = [line[0].partition(";")[0]]
    token = core.manager.forms.make("basis")
    core.manager.use_keys([new, old])
    with_both = core.manager.cookies.read(presented), core.manager.forms.check(token, "basis")
    core.manager.cookies.write(line, sid)
    core.manager.use_keys([new])

    assert with_both == (sid, True)
    assert (core.manager.cookies.read(presented), core.manager.forms.check(token, "basis")) == (None, False)
    assert core.manager.cookies.read([line[1].partition(";")[0]]) == sid


@pytest.mark.parametrize("wrong", [[], ["short"], ["k" * 40, "k" * 40]])
@pytest.mark.gen_test
async def test_keys_that_will_not_do_leave_the_ones_in_use(wrong: list[str], core: Core) -> None:  # L7
    """The error comes before anything changed."""
    before = core.manager.cookies, core.manager.forms
    with pytest.raises(ValueError, match="key"):
        core.manager.use_keys(wrong)

    assert (core.manager.cookies, core.manager.forms) == before


# --- time left ---


@pytest.mark.gen_test
async def test_the_time_left_is_that_after_this_request(core: Core) -> None:  # B9
    """A touch that is due is counted in; one that is not leaves what is stored; a visitor has none."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    core.clock.advance(59)
    fresh = await visitor.request(SAFE)
    soon = core.manager.idle_left_s(fresh), core.manager.deadline_left_s(fresh)
    core.clock.advance(1.5)
    due = core.manager.idle_left_s(await visitor.request(SAFE))
    nobody = await Visitor(core).request(SAFE)

    assert soon == (1741, 43_141)
    assert due == 1800
    assert (core.manager.idle_left_s(nobody), core.manager.deadline_left_s(nobody)) == (None, None)


def test_cookie_of_an_early_clock_is_accepted() -> None:
    """A machine whose clock starts at 1970 accepts what it signed; the time has fewer digits then."""
    signing, reading = (SessionManager(MemoryStore(), secrets=[KEY], clock=lambda: 1000.0) for _ in range(2))
    sid, response = SessionId.mint(), Response()

    signing.cookies.write(response, sid)
    pair = response[0].partition(";")[0]

    assert reading.cookies.read([pair]) == sid

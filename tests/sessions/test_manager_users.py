"""A user's sessions: listed, ended, bounded, and counted only while the account stands behind them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stormcellar import Event, Kind, Lifetime, SignInRevoked
from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.request_info import CookieChange, Presence
from stormcellar.sessions.session import state_of
from tests.support.core import AccountTimes, Core, Visitor


@pytest.fixture
def core() -> Core:
    """A manager on an empty store."""
    return Core()


@pytest.mark.gen_test
async def test_a_users_sessions_are_listed_newest_first(core: Core) -> None:  # C9
    """Every live session of that user and nobody else's, without data."""
    visitors = [Visitor(core) for _ in range(3)]
    for visitor in visitors:
        core.clock.advance(1)
        await visitor.signs_in("ada")
        await visitor.writes(private="text")
    await Visitor(core).signs_in("bob")
    await Visitor(core).writes(a=1)

    listed = await core.manager.of_user("ada")

    assert [record.handle for record in listed] == [v.sid.handle for v in reversed(visitors) if v.sid]
    assert [record.data for record in listed] == [{}, {}, {}]


@pytest.mark.gen_test
async def test_one_session_can_be_revoked(core: Core) -> None:  # C8
    """The next request of that session finds it ended; the user's others go on."""
    here, there = Visitor(core), Visitor(core)
    await here.signs_in("ada")
    await there.signs_in("ada")
    assert there.sid is not None

    revoked = await core.manager.revoke("ada", there.sid.handle)
    again = await core.manager.revoke("ada", there.sid.handle)

    assert (revoked, again) == (True, False)
    assert state_of(await there.request()).presence is Presence.LATE
    assert (await here.request()).user == "ada"


@pytest.mark.gen_test
async def test_nobody_revokes_what_is_not_theirs(core: Core) -> None:  # C9
    """Another user's handle, an anonymous one, a random one and junk are all the same: nothing there."""
    ada, anonymous = Visitor(core), Visitor(core)
    await Visitor(core).signs_in("bob")
    await ada.signs_in("ada")
    await anonymous.writes(a=1)
    assert ada.sid is not None and anonymous.sid is not None

    handles = [
        ada.sid.handle,
        anonymous.sid.handle,
        SessionId.mint().handle,
        "",
        "*",
        "../x",
        "$ne",
        "é" * 22,
    ]
    revoked = [await core.manager.revoke("bob", handle) for handle in handles]

    assert revoked == [False] * len(handles)
    assert ((await ada.request()).user, await anonymous.reads()) == ("ada", {"a": 1})
    assert core.store.calls["destroy"] == 0


@pytest.mark.gen_test
async def test_all_others_can_be_revoked(core: Core) -> None:  # C8
    """Every session of the user but one ends, and how many is said; other users are left alone."""
    here, *others = (Visitor(core) for _ in range(4))
    bob = Visitor(core)
    await bob.signs_in("bob")
    for visitor in (here, *others):
        await visitor.signs_in("ada")
    assert here.sid is not None

    ended = await core.manager.revoke_others("ada", than=here.sid.handle)

    assert ended == 3
    assert [(await each.request()).user for each in (here, *others, bob)] == ["ada", None, None, None, "bob"]


@pytest.mark.gen_test
async def test_the_others_that_have_just_expired_end_as_well(core: Core) -> None:
    """By the clock of another process, or after this one was set back, they would still be live."""
    here, there = Visitor(core), Visitor(core)
    await there.signs_in("ada")
    core.clock.advance(1790)
    await here.signs_in("ada")
    core.clock.advance(20)
    assert here.sid is not None

    await core.manager.revoke_others("ada", than=here.sid.handle)
    core.clock.advance(-20)

    assert [(await each.request()).user for each in (here, there)] == ["ada", None]


@pytest.mark.gen_test
async def test_sign_in_ends_the_oldest_beyond_the_bound() -> None:  # C12
    """With two sessions allowed, the third sign-in ends the one that was signed in longest ago."""
    core = Core(lifetime=Lifetime(max_per_user=2))
    visitors = [Visitor(core) for _ in range(3)]
    for n in (0, 1, 0, 2):
        core.clock.advance(1)
        await visitors[n].signs_in("ada")

    assert [(await each.request()).user for each in visitors] == ["ada", None, "ada"]


# --- accounts ---


@pytest.mark.gen_test
async def test_a_session_counts_while_its_account_stands(core: Core) -> None:  # C11
    """A sign-in must be later than `valid_after`, to the millisecond; the record of one that is not goes."""
    accounts = AccountTimes({"ada": core.manager.now_ms() - 1})
    core = Core(accounts=accounts, clock=core.clock)
    visitor = Visitor(core)
    await visitor.signs_in("ada")

    before = (await visitor.request()).user
    accounts.users["ada"] = core.manager.now_ms()
    at_once = await visitor.request()
    core.clock.advance(60)
    session = await visitor.request()
    await core.manager.drain()

    assert (before, session.user, state_of(session).presence) == ("ada", None, Presence.NONE)
    assert state_of(session).cookie is CookieChange.CLEAR
    assert await core.everything() == []
    assert (at_once.user, state_of(at_once).presence, state_of(at_once).cookie) == (
        None,
        Presence.LATE,
        CookieChange.KEEP,
    )


@pytest.mark.gen_test
async def test_a_deleted_account_fails_closed() -> None:  # C11
    """Without an account neither the next request nor the list of sessions knows the user."""
    accounts = AccountTimes({"ada": 0})
    core = Core(accounts=accounts)
    visitor = Visitor(core)
    await visitor.signs_in("ada")

    del accounts.users["ada"]
    listed = await core.manager.of_user("ada")
    session = await visitor.request()

    assert (listed, session.user) == ([], None)


@pytest.mark.gen_test
async def test_an_account_that_ended_says_nothing_of_visitors() -> None:
    """An anonymous session needs no account."""
    core = Core(accounts=AccountTimes({}))
    visitor = Visitor(core)

    await visitor.writes(a=1)

    assert await visitor.reads() == {"a": 1}


@pytest.mark.gen_test
@pytest.mark.parametrize("has_session", [False, True])
@pytest.mark.parametrize("change", ["disabled", "new password"])
async def test_an_account_that_changes_during_sign_in_wins(has_session: bool, change: str) -> None:  # C11
    """What counts is when the password was checked: a change since then ends the sign-in and its record."""
    accounts = AccountTimes({"ada": 0})
    core = Core(accounts=accounts)
    visitor = Visitor(core)
    if has_session:
        await visitor.writes(a=1)
    session = await visitor.request()
    auth_ms = core.manager.now_ms()
    gate = core.store.gate("rotate" if has_session else "create")

    signing_in = asyncio.create_task(session.login("ada", auth_ms=auth_ms))
    await gate.reached()
    if change == "disabled":
        del accounts.users["ada"]
    else:
        accounts.users["ada"] = auth_ms
    gate.open()
    with pytest.raises(SignInRevoked):
        await signing_in

    assert (session.user, state_of(session).presence, visitor.take(session)) == (
        None,
        Presence.SIGNED_OUT,
        CookieChange.CLEAR,
    )
    assert await core.everything() == []


@pytest.mark.gen_test
async def test_who_changes_the_password_stays_signed_in() -> None:  # C8
    """Signing in with a time just after `valid_after` keeps this session and ends all earlier ones."""
    accounts = AccountTimes({"ada": 0})
    core = Core(accounts=accounts)
    here, there = Visitor(core), Visitor(core)
    await here.signs_in("ada")
    await here.writes(draft=1)
    await there.signs_in("ada")

    session = await here.request()
    accounts.users["ada"] = core.manager.now_ms()
    await session.login("ada", auth_ms=accounts.users["ada"] + 1)
    here.take(session)

    assert [(await each.request()).user for each in (here, there)] == ["ada", None]
    assert await here.reads() == {"draft": 1}


# --- an account that changed just now ---


@pytest.mark.parametrize("valid_after", [2**53, float("inf")])
@pytest.mark.gen_test
async def test_a_moment_that_never_comes_ends_sessions_at_once(valid_after: Any, core: Core) -> None:  # C11
    """A directory that says so means it: no minute is waited for, and nothing comes back."""
    accounts = AccountTimes({"ada": 0})
    core = Core(accounts=accounts, clock=core.clock)
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    accounts.users["ada"] = valid_after
    session = await visitor.request()
    await core.manager.drain()
    accounts.users["ada"] = 0

    assert state_of(session).presence is Presence.NONE
    assert (await visitor.request()).user is None


@pytest.mark.parametrize("then", ["signs in", "signs out"])
@pytest.mark.gen_test
async def test_a_session_of_before_the_change_is_not_left_behind(then: str, core: Core) -> None:  # C10, I9
    """Whoever signs in anew, or out, within the minute ends it, and it is told."""
    accounts = AccountTimes({"ada": 0})
    core = Core(accounts=accounts, clock=core.clock)
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    assert visitor.sid is not None
    old = visitor.sid.handle
    accounts.users["ada"] = core.manager.now_ms()
    core.clock.advance(1)
    events: list[Event] = []
    core.manager.events.subscribe(events.append)
    session = await visitor.request()
    await (session.login("ada") if then == "signs in" else session.logout())
    cookie = visitor.take(session)

    assert old not in {record.handle for record in await core.everything()}
    assert [(e.handle, e.user, e.reason) for e in events if e.kind is Kind.DESTROYED] == [
        (old, "ada", "account")
    ]
    assert cookie is (CookieChange.SET if then == "signs in" else CookieChange.CLEAR)

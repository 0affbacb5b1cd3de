"""Signing out and renewing: what ends, what stays."""

from __future__ import annotations

import pytest

from stormcellar import SessionChanged
from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.request_info import CookieChange, Presence
from stormcellar.sessions.session import state_of
from stormcellar.stores import Rotation
from tests.support.core import Core, Visitor


@pytest.fixture
def core() -> Core:
    """A manager on an empty store."""
    return Core()


@pytest.mark.gen_test
async def test_sign_out_destroys_the_record(core: Core) -> None:  # C5
    """Nothing is left in the store, the cookie is cleared, and the ID never works again."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    stolen = visitor.twin()

    session = await visitor.request()
    session["late"] = 1
    await session.logout()
    change = await visitor.answer(session)

    assert (change, session.user, dict(session)) == (CookieChange.CLEAR, None, {})
    assert await core.everything() == []
    assert state_of(await stolen.request()).presence is Presence.LATE


@pytest.mark.gen_test
async def test_after_sign_out_only_sign_in_may_follow(core: Core) -> None:  # C5
    """Assignment raises, a second sign-out does nothing, and signing in makes a session of its own."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    old = visitor.sid

    session = await visitor.request()
    await session.logout()
    with pytest.raises(RuntimeError, match="signed the session out"):
        session["a"] = 1
    with pytest.raises(RuntimeError, match="signed the session out"):
        await session.modify("a", lambda _: 1)
    await session.logout()
    await session.renew()
    await session.commit()
    left = await core.everything()
    await session.login("bob")
    session["a"] = 1
    await visitor.answer(session)

    assert left == []
    assert old is not None and visitor.sid is not None
    assert visitor.sid.handle != old.handle
    assert ((await visitor.request()).user, await visitor.reads()) == ("bob", {"a": 1})


@pytest.mark.gen_test
async def test_sign_out_without_a_session_asks_no_store(core: Core) -> None:  # C6, A15
    """A visitor who signs out gets no cookie, costs nothing and makes nothing."""
    visitor = Visitor(core)

    session = await visitor.request()
    await session.logout()

    assert (visitor.take(session), core.store.calls.total()) == (CookieChange.KEEP, 0)


@pytest.mark.gen_test
async def test_sign_out_with_an_old_cookie(core: Core) -> None:  # C6
    """A superseded cookie signs nobody out; right after the sign-in or sign-out the cookie stays."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    before = visitor.twin()
    await visitor.signs_in("ada")

    superseded = await before.request()
    await superseded.logout()
    alive = (await visitor.request()).user
    core.clock.advance(30)
    later = await before.request()
    await later.logout()
    still_alive = (await visitor.request()).user
    await (await visitor.request()).logout()
    ended = await before.request()
    await ended.logout()

    assert (state_of(superseded).cookie, alive) == (CookieChange.KEEP, "ada")
    assert (state_of(later).cookie, still_alive) == (CookieChange.CLEAR, "ada")
    assert state_of(ended).cookie is CookieChange.KEEP


# --- renewal ---


@pytest.mark.parametrize("begun", ["sign-in", "visit"])
@pytest.mark.gen_test
async def test_sign_out_ends_what_the_same_request_began(core: Core, begun: str) -> None:  # C5
    """Also if the request came with the cookie of an expired session."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    core.clock.advance(1800)

    session = await visitor.request()
    if begun == "sign-in":
        await session.login("ada")
    else:
        session["a"] = 1
        await session.commit()
    await session.logout()

    assert await visitor.answer(session) is CookieChange.CLEAR
    assert await core.everything() == []


@pytest.mark.gen_test
async def test_renewal_changes_the_id_alone(core: Core) -> None:  # B3, C2
    """User, beginning, sign-in, deadline and data stay, what is pending is saved, and the old ID is dead."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    await visitor.writes(a=1)
    before, old = await core.stored(visitor.sid), visitor.twin()

    core.clock.advance(600)
    session = await visitor.request()
    session["b"] = 2
    await session.renew()
    visitor.take(session)
    after = await core.stored(visitor.sid)

    assert state_of(await old.request()).presence is Presence.LATE
    assert after.data == {"a": b"1", "b": b"2"}
    assert (after.user, after.created_ms, after.auth_ms, after.deadline_ms) == (
        before.user,
        before.created_ms,
        before.auth_ms,
        before.deadline_ms,
    )
    assert (after.rotated_ms, after.expires_ms) == (core.manager.now_ms(), before.expires_ms + 600_000)


@pytest.mark.gen_test
async def test_renewal_without_a_record_does_nothing(core: Core) -> None:
    """What is pending is left to the response, and no record is made by renewing."""
    session = await Visitor(core).request()
    session["a"] = 1

    await session.renew()

    assert (core.store.calls.total(), state_of(session).cookie) == (0, CookieChange.KEEP)
    assert state_of(session).data.pending() is not None


@pytest.mark.gen_test
@pytest.mark.parametrize("meanwhile", ["logout", "login"])
async def test_renewal_of_what_is_gone_is_a_conflict(core: Core, meanwhile: str) -> None:
    """If another request ended the session or changed its ID, renewing says so and leaves the cookie."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    slow, other = await visitor.request(), await visitor.twin().request()
    await (other.logout() if meanwhile == "logout" else other.login("ada"))

    with pytest.raises(SessionChanged):
        await slow.renew()

    assert state_of(slow).cookie is CookieChange.KEEP


@pytest.mark.gen_test
async def test_an_id_in_its_grace_reads_writes_and_signs_in(core: Core) -> None:  # C13, D5
    """Who signs in by it gets the session with what may survive, under a new ID, and leaves none."""
    visitor = Visitor(core)
    await visitor.writes(cart=["apples"])
    record = await core.stored(visitor.sid)
    await core.store.inner.rotate(
        record.credential,
        Rotation(
            new_verifier=SessionId.mint().credential.verifier,
            rotated_ms=core.manager.now_ms(),
            user=None,
            auth_ms=None,
            client=b"",
            expires_ms=record.expires_ms,
            deadline_ms=record.deadline_ms,
            keep=None,
            grace_ms=60_000,
        ),
        now_ms=core.manager.now_ms(),
    )

    await visitor.writes(a=1)
    session = await visitor.request()
    await session.login("ada", keep={"cart"})
    visitor.take(session)

    assert visitor.sid is not None
    assert visitor.sid.handle == record.handle
    assert ((await visitor.request()).user, await visitor.reads()) == ("ada", {"cart": ["apples"]})
    assert [each.handle for each in await core.everything()] == [visitor.sid.handle]


@pytest.mark.gen_test
@pytest.mark.parametrize("loaded", ["before", "after"])
async def test_a_double_click_at_the_expiry_does_not_end_the_first_sign_in(
    core: Core, loaded: str
) -> None:  # D5
    """The second click finds the session expired that the first one has taken over, and gets its own."""
    first, second = Visitor(core), Visitor(core)
    await first.writes(a=1)
    second.sid = first.sid
    expiry_s = (await core.stored(first.sid)).expires_ms / 1000
    core.clock.now_s = expiry_s - 1
    first_click = await first.request()
    second_click = await second.request()
    if loaded == "after":
        core.clock.now_s = expiry_s + 1
        second_click = await second.request()
        # The first click arrived before the expiry: its password takes a while to check.
        core.clock.now_s = expiry_s - 1
    await first_click.login("ada")
    first.take(first_click)

    core.clock.now_s = expiry_s + 1
    await second_click.login("ada")
    second.take(second_click)

    assert [(await each.request()).user for each in (first, second)] == ["ada", "ada"]
    assert first.sid is not None and second.sid is not None
    assert first.sid.handle != second.sid.handle

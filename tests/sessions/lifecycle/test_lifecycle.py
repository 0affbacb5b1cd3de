"""A visitor's first write, and signing in: what changes, and what survives."""

from __future__ import annotations

from typing import Any

import pytest

from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.request_info import CookieChange, Presence
from stormcellar.sessions.session import state_of
from tests.support.core import SAFE, Core, Visitor

HOUR_S = 3600


@pytest.fixture
def core() -> Core:
    """A manager on an empty store."""
    return Core()


# --- a visitor ---


@pytest.mark.gen_test
async def test_a_visitor_who_writes_nothing_leaves_no_trace(core: Core) -> None:  # A15
    """Without a cookie and without a write there is no store call and no cookie."""
    visitor = Visitor(core)

    session = await visitor.request(SAFE)
    read = session.get("cart")
    change = await visitor.answer(session)

    assert (read, change, state_of(session).presence) == (None, CookieChange.KEEP, Presence.NONE)
    assert core.store.calls.total() == 0


@pytest.mark.gen_test
async def test_the_first_write_makes_one_record_and_one_cookie(core: Core) -> None:  # A1, A15
    """Several values of one request are one record, whose ID is new and goes to the browser."""
    visitor = Visitor(core)

    session = await visitor.writes(a=1, b=2)

    assert (state_of(session).cookie, state_of(session).presence, session.user) == (
        CookieChange.SET,
        Presence.LIVE,
        None,
    )
    assert core.store.calls == {"create": 1}
    assert (await core.stored(visitor.sid)).data == {"a": b"1", "b": b"2"}


@pytest.mark.gen_test
async def test_an_unknown_id_is_never_adopted(core: Core) -> None:  # A2, C1
    """A well-formed ID that no store knows reads as ended; sign-in makes a new one of its own."""
    planted = SessionId.mint()
    visitor = Visitor(core, planted)

    session = await visitor.request()
    before = (state_of(session).presence, state_of(session).cookie)
    await session.login("ada")
    visitor.take(session)

    assert before == (Presence.NONE, CookieChange.CLEAR)
    assert visitor.sid is not None
    assert visitor.sid.handle != planted.handle
    assert visitor.sid.secret != planted.secret


@pytest.mark.gen_test
async def test_a_wrong_secret_is_superseded_and_harms_nobody(core: Core) -> None:  # A2
    """Who knows a handle alone reads nothing, ends nothing, and does not disturb its owner."""
    owner = Visitor(core)
    await owner.writes(a=1)
    assert owner.sid is not None

    thief = Visitor(core, SessionId(owner.sid.handle, SessionId.mint().secret))
    session = await thief.request()
    await session.logout()

    assert (session.handle, dict(session), thief.take(session)) == (None, {}, CookieChange.KEEP)
    assert await owner.reads() == {"a": 1}


# --- sign-in ---


@pytest.mark.gen_test
async def test_sign_in_changes_the_id_and_kills_the_old_one(core: Core) -> None:  # C1, C2
    """After sign-in the old ID reads as superseded and can no longer write; the new one is signed in."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    before = visitor.twin()

    await visitor.signs_in("ada")
    old, new = await before.request(), await visitor.request()

    assert visitor.sid is not None and before.sid is not None
    assert visitor.sid.secret != before.sid.secret
    assert (state_of(old).presence, old.user, dict(old)) == (Presence.LATE, None, {})
    assert (state_of(new).presence, new.user) == (Presence.LIVE, "ada")


@pytest.mark.gen_test
async def test_what_survives_sign_in_is_an_allowlist(core: Core) -> None:  # C3
    """Of an anonymous session only the keys of `keep` survive, stored or written in the same request."""
    visitor = Visitor(core)
    await visitor.writes(cart=["apples"], role="admin", old=1)

    session = await visitor.request()
    session["note"] = "kept"
    session["planted"] = "dropped"
    del session["old"]
    await session.login("ada", keep={"cart", "note", "absent"})
    seen = dict(session)
    await visitor.answer(session)

    assert seen == {"cart": ["apples"], "note": "kept"}
    assert await visitor.reads() == seen


@pytest.mark.gen_test
async def test_nothing_survives_sign_in_by_default(core: Core) -> None:  # C3
    """Without an allowlist a signed-in session begins empty, for a new visitor too."""
    known, new = Visitor(core), Visitor(core)
    await known.writes(a=1)
    session = await new.request()
    session["a"] = 1

    await known.signs_in("ada")
    await session.login("bob")
    await new.answer(session)

    assert (await known.reads(), await new.reads()) == ({}, {})


@pytest.mark.gen_test
async def test_a_new_visitor_carries_the_allowlist_too(core: Core) -> None:  # C3
    """What a visitor without a record wrote in the request of the sign-in is filtered as what was stored."""
    visitor = Visitor(core)

    session = await visitor.request()
    session.update(cart=["apples"], role="admin")
    await session.login("ada", keep={"cart"})
    await visitor.answer(session)

    assert (await visitor.reads(), core.store.calls["create"]) == ({"cart": ["apples"]}, 1)


@pytest.mark.gen_test
async def test_signing_in_again_keeps_everything(core: Core) -> None:  # C2
    """The same user proves who they are again: a new ID, a new deadline, the same data and beginning."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    await visitor.writes(draft="text")
    first, before = visitor.sid, await core.stored(visitor.sid)

    core.clock.advance(600)
    await visitor.signs_in("ada")
    after = await core.stored(visitor.sid)

    assert visitor.sid != first
    assert after.data == {"draft": b'"text"'}
    assert (after.handle, after.created_ms) == (before.handle, before.created_ms)
    assert (after.auth_ms, after.deadline_ms) == (core.manager.now_ms(), before.deadline_ms + 600_000)


@pytest.mark.gen_test
async def test_no_data_crosses_from_user_to_user(core: Core) -> None:  # C2, C3
    """Signing in over another user's session keeps nothing, whatever `keep` says."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    await visitor.writes(draft="ada's")

    session = await visitor.request()
    session["note"] = "written by ada's page"
    await session.login("bob", keep={"draft", "note"})
    await visitor.answer(session)

    assert (await visitor.request()).user == "bob"
    assert await visitor.reads() == {}
    assert await core.manager.of_user("ada") == []


@pytest.mark.gen_test
async def test_data_cannot_make_a_user(core: Core) -> None:  # C4
    """Data keys that look like those of the record change nothing about who is signed in."""
    visitor = Visitor(core)

    await visitor.writes(user="root", auth_ms=1, verifier="v", expires_ms=2**53, deadline_ms=2**53)
    session = await visitor.request()

    assert session.user is None
    assert (await core.stored(visitor.sid)).deadline_ms == core.manager.now_ms() + 12 * HOUR_S * 1000


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("user", "keep", "error"),
    [
        ("", (), ValueError),
        (None, (), TypeError),
        (7, (), TypeError),
        ("\ud800", (), ValueError),
        ("ada", "cart", TypeError),
        ("ada", b"cart", TypeError),
        ("ada", {"not a key"}, ValueError),
        ("ada", [1], TypeError),
    ],
    ids=repr,
)
async def test_a_slip_in_the_call_is_refused(
    core: Core, user: Any, keep: Any, error: type[Exception]
) -> None:
    """A user that is no text and an allowlist that is one string are errors, before any store call."""
    session = await Visitor(core).request()

    with pytest.raises(error):
        await session.login(user, keep=keep)

    assert (session.user, core.store.calls.total()) == (None, 0)


@pytest.mark.gen_test
@pytest.mark.parametrize("user", ["Zoë 🐦", "$where", "a.b", "{tag}", "a\x00b", " ", "x" * 5000], ids=repr)
async def test_any_other_text_is_a_user(core: Core, user: str) -> None:
    """Names are the application's own business: what it signs in is what it reads back."""
    visitor = Visitor(core)

    await visitor.signs_in(user)

    assert (await visitor.request()).user == user

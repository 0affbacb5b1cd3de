"""Requests whose session is over: late ones, and those of visitors who come back; forms before a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stormcellar import SessionEnded
from stormcellar.sessions.request_info import CookieChange, Presence
from stormcellar.sessions.session import Session, state_of
from stormcellar.stores import Delta
from tests.support.core import SAFE, UNSAFE, Core, Visitor

AGE_S = {"late": 29.999, "stale": 30.0}
"""How long ago the session ended or its ID was rotated."""


@pytest.fixture
def core() -> Core:
    """A manager on an empty store."""
    return Core()


async def over(core: Core, how: str, *, age_s: float = 0) -> Visitor:
    """Return a visitor whose cookie is superseded by a sign-in, or whose session ended, *age_s* ago."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    elsewhere = visitor.twin()
    await elsewhere.signs_in("ada")
    if how == "ended":
        await (await elsewhere.request()).logout()
    elif how == "expired":
        core.clock.advance(1800)
    core.clock.advance(age_s)
    core.store.calls.clear()
    return visitor


async def finish(session: Session) -> None:
    """Save as a response does, without the handler asking for it."""
    state = state_of(session)
    await session._lifecycle.commit(state, state.data.pending() or Delta())


# --- late requests ---


@pytest.mark.gen_test
@pytest.mark.parametrize("how", ["superseded", "ended"])
async def test_a_late_request_reads_as_anonymous(core: Core, how: str) -> None:  # D1, D2
    """There is no user, no handle and no data, and the cookie is left alone: there may be a newer one."""
    visitor = await over(core, how, age_s=AGE_S["late"])

    session = await visitor.request(SAFE)

    assert (state_of(session).presence, state_of(session).cookie) == (Presence.LATE, CookieChange.KEEP)
    assert (session.user, session.handle, dict(session)) == (None, None, {})


@pytest.mark.gen_test
@pytest.mark.parametrize("age", AGE_S)
@pytest.mark.parametrize("how", ["superseded", "ended", "expired"])
async def test_a_second_proof_brings_no_ended_session_back(core: Core, how: str, age: str) -> None:  # C5
    """It proves who uses this session, so without the session it signs nobody in."""
    visitor = await over(core, how, age_s=AGE_S[age])
    before = await core.everything()

    session = await visitor.request()
    with pytest.raises(SessionEnded):
        await session.login("ada", afresh=False)

    assert (session.user, state_of(session).cookie is CookieChange.SET) == (None, False)
    assert await core.everything() == before


@pytest.mark.gen_test
async def test_a_clock_that_was_set_back_makes_no_request_younger(core: Core) -> None:  # D2
    """Tornado takes the age from the system clock; the request is as late as one that just arrived."""
    visitor = await over(core, "ended", age_s=AGE_S["late"])

    session = await visitor.request(SAFE._replace(age_s=-3600))

    assert state_of(session).presence is Presence.LATE


@pytest.mark.gen_test
@pytest.mark.parametrize("how", ["superseded", "ended"])
async def test_a_late_safe_request_drops_what_it_wrote(
    core: Core, how: str, caplog: pytest.LogCaptureFixture
) -> None:  # D1, D2
    """No record is made and no cookie set; a log line says so; the handler can still read what it wrote."""
    visitor = await over(core, how)

    session = await visitor.request(SAFE)
    session["visits"] = [1]
    await finish(session)
    seen, delta = session["visits"], state_of(session).data.pending()

    assert (seen, delta, state_of(session).cookie) == ([1], None, CookieChange.KEEP)
    assert core.store.calls == {"load": 1}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.gen_test
@pytest.mark.parametrize("how", ["superseded", "ended"])
async def test_a_late_unsafe_request_is_refused(core: Core, how: str) -> None:  # D1, D2
    """A write raises SessionEnded without a store call; reading alone is no error."""
    session = await (await over(core, how)).request(UNSAFE)
    await finish(session)
    session["a"] = 1

    with pytest.raises(SessionEnded):
        await finish(session)

    assert core.store.calls == {"load": 1}


VERBS: dict[str, Callable[[Session], Any]] = {
    "commit": lambda session: session.commit(),
    "modify": lambda session: session.modify("n", lambda n: 1),
    "renew": lambda session: session.renew(),
    "expire_in": lambda session: session.expire_in(60),
    "reload": lambda session: session.reload(),
}


@pytest.mark.gen_test
@pytest.mark.parametrize("request_info", [SAFE, UNSAFE], ids=["safe", "unsafe"])
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("how", ["superseded", "ended"])
async def test_a_verb_of_a_late_request_raises(core: Core, how: str, verb: str, request_info: Any) -> None:
    """What was asked for cannot be done, so it does not return as if it had been."""
    session = await (await over(core, how)).request(request_info)
    if verb == "commit":
        session["a"] = 1

    with pytest.raises(SessionEnded):
        await VERBS[verb](session)

    assert core.store.calls == {"load": 1}


@pytest.mark.gen_test
async def test_a_slow_body_makes_a_request_late(core: Core) -> None:
    """The time at which the head arrived counts, not the time of the load."""
    visitor = await over(core, "ended", age_s=100)

    slow = await visitor.request(SAFE._replace(age_s=71))
    slower = await visitor.request(SAFE._replace(age_s=400))
    quick = await visitor.request(SAFE._replace(age_s=70.9))

    presences = [state_of(session).presence for session in (slow, slower, quick)]
    assert presences == [Presence.LATE, Presence.LATE, Presence.NONE]


# --- visitors who come back ---


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("how", "cookie"),
    [("superseded", CookieChange.KEEP), ("ended", CookieChange.CLEAR), ("expired", CookieChange.CLEAR)],
)
async def test_a_stale_cookie_counts_as_none(core: Core, how: str, cookie: CookieChange) -> None:  # B4
    """Its request is a visitor's. Only that of a session that is over is cleared."""
    visitor = await over(core, how, age_s=AGE_S["stale"])

    session = await visitor.request(SAFE)
    await finish(session)

    assert (state_of(session).presence, state_of(session).cookie) == (Presence.NONE, cookie)
    assert (session.user, session.handle, dict(session)) == (None, None, {})


@pytest.mark.gen_test
@pytest.mark.parametrize("request_info", [SAFE, UNSAFE], ids=["safe", "unsafe"])
@pytest.mark.parametrize("how", ["superseded", "ended", "expired"])
async def test_a_visitor_who_comes_back_begins_a_session(core: Core, how: str, request_info: Any) -> None:
    """A cart after lunch, the state of OAuth, a message about the sign-in: nothing is lost."""  # A2
    visitor = await over(core, how, age_s=AGE_S["stale"])
    old = visitor.sid

    session = await visitor.request(request_info)
    session["cart"] = [1]
    session.flash("Please sign in.")
    await visitor.answer(session)

    page = await visitor.request(SAFE)
    assert old is not None and visitor.sid is not None and old.handle != visitor.sid.handle
    assert (page.user, dict(page), page.flashes()) == (None, {"cart": [1]}, ["Please sign in."])


@pytest.mark.gen_test
async def test_an_expired_session_is_never_late(core: Core) -> None:
    """Not even a moment after its expiry: nobody signed out or in."""
    visitor = await over(core, "expired")

    session = await visitor.request(UNSAFE)
    session["cart"] = 1
    await visitor.answer(session)

    assert await visitor.reads() == {"cart": 1}


# --- in every case ---


@pytest.mark.gen_test
@pytest.mark.parametrize("age", AGE_S)
@pytest.mark.parametrize("how", ["superseded", "ended", "expired"])
async def test_signing_in_over_what_is_over_makes_a_new_session(core: Core, how: str, age: str) -> None:
    """A sign-in sets a cookie for a new record, with what `keep` lets through."""  # C1, D1
    visitor = await over(core, how, age_s=AGE_S[age])
    old = visitor.sid

    session = await visitor.request()
    session.update(cart=1, role=2)
    await session.login("bob", keep={"cart", "a"})
    await visitor.answer(session)

    assert old is not None and visitor.sid is not None
    assert visitor.sid.handle != old.handle
    assert await visitor.reads() == {"cart": 1}


@pytest.mark.gen_test
@pytest.mark.parametrize("message", [False, True])
@pytest.mark.parametrize("how", ["superseded", "ended", "expired"])
async def test_signing_out_of_what_is_over_is_no_error(core: Core, how: str, message: bool) -> None:  # C6
    """A message of a late sign-out is dropped: it would need a cookie."""
    session = await (await over(core, how)).request(UNSAFE)
    await session.logout()
    if message:
        session.flash("You are signed out.")
    await finish(session)

    kept = how == "expired" and message
    assert len(await core.everything()) == (how == "superseded") + kept


# --- forms rendered before there is a session ---


@pytest.mark.gen_test
async def test_a_form_is_bound_to_the_session_made_after_it(core: Core) -> None:  # C15, F3
    """The secret promised to a form is that of the session this request makes, and is promised once."""
    visitor = Visitor(core)

    session = await visitor.request(SAFE)
    promised = state_of(session).reserve()
    again, before = state_of(session).reserve(), state_of(session).reserved
    session["a"] = 1
    await visitor.answer(session)

    assert (again, before) == (promised, promised)
    assert visitor.sid is not None
    assert (visitor.sid.secret, state_of(session).reserved) == (promised, None)


@pytest.mark.gen_test
async def test_a_promise_without_a_session_stays_a_promise(core: Core) -> None:  # A15
    """If no session is made the promised secret is left for the nonce cookie, and no store is asked."""
    session = await Visitor(core).request(SAFE)
    promised = state_of(session).reserve()
    await session.commit()

    assert (state_of(session).reserved, core.store.calls.total()) == (promised, 0)


@pytest.mark.gen_test
async def test_two_requests_are_promised_different_secrets(core: Core) -> None:
    """A promise belongs to one request; after sign-out another one is made."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    assert visitor.sid is not None
    session = await visitor.request()
    await session.logout()

    promised = {
        state_of(session).reserve(),
        state_of(await Visitor(core).request()).reserve(),
        visitor.sid.secret,
    }

    assert len(promised) == 3

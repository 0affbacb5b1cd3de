"""What a request may do whose session is over, and what a form is bound to before there is one."""

from __future__ import annotations

import pytest

from stormcellar import SessionEnded
from stormcellar.sessions.request_info import CookieChange, Presence
from stormcellar.sessions.session import state_of
from tests.support.core import SAFE, UNSAFE, Core, Visitor


@pytest.fixture
def core() -> Core:
    """A manager on an empty store."""
    return Core()


async def over(core: Core, how: str) -> Visitor:
    """Return a visitor whose cookie is superseded by a sign-in, or whose session was ended, elsewhere."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    elsewhere = visitor.twin()
    await elsewhere.signs_in("ada")
    if how == "ended":
        await (await elsewhere.request()).logout()
    core.store.calls.clear()
    return visitor


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("how", "presence", "cookie"),
    [
        ("superseded", Presence.SUPERSEDED, CookieChange.KEEP),
        ("ended", Presence.ENDED, CookieChange.CLEAR),
    ],
)
async def test_what_is_over_reads_as_anonymous(
    core: Core, how: str, presence: Presence, cookie: CookieChange
) -> None:  # D1, D2
    """There is no user, no handle and no data; only the cookie of an ended session is cleared."""
    visitor = await over(core, how)

    session = await visitor.request(SAFE)

    assert (state_of(session).presence, state_of(session).cookie) == (presence, cookie)
    assert (session.user, session.handle, dict(session)) == (None, None, {})


@pytest.mark.gen_test
@pytest.mark.parametrize("how", ["superseded", "ended"])
async def test_a_safe_request_drops_what_it_wrote(core: Core, how: str) -> None:  # D1, D2
    """No record is made and no cookie set; the handler can still read what it wrote."""
    visitor = await over(core, how)

    session = await visitor.request(SAFE)
    cookie = state_of(session).cookie
    session["visits"] = [1]
    await session.commit()
    counted = await session.modify("n", lambda n: (n or 0) + 1)
    seen, delta = session["visits"], state_of(session).data.pending()

    assert (seen, delta, counted, state_of(session).cookie) == ([1], None, 1, cookie)
    assert core.store.calls == {"load": 1}


@pytest.mark.gen_test
@pytest.mark.parametrize("how", ["superseded", "ended"])
async def test_an_unsafe_request_is_told_that_its_session_ended(core: Core, how: str) -> None:  # D1, D2
    """A write and a counter raise SessionEnded without a store call; reading alone is no error."""
    visitor = await over(core, how)

    session = await visitor.request(UNSAFE)
    await session.commit()
    with pytest.raises(SessionEnded):
        await session.modify("n", lambda n: 1)
    session["a"] = 1
    with pytest.raises(SessionEnded):
        await session.commit()

    assert core.store.calls == {"load": 1}


@pytest.mark.gen_test
@pytest.mark.parametrize("how", ["superseded", "ended"])
async def test_signing_in_over_what_is_over_makes_a_new_session(core: Core, how: str) -> None:  # C1, D1
    """Sign-in alone may set a cookie then: for a new record, with what `keep` lets through."""
    visitor = await over(core, how)
    old = visitor.sid

    session = await visitor.request()
    session.update(cart=1, role=2)
    await session.login("bob", keep={"cart", "a"})
    await visitor.answer(session)

    assert old is not None and visitor.sid is not None
    assert visitor.sid.handle != old.handle
    assert await visitor.reads() == {"cart": 1}


@pytest.mark.gen_test
@pytest.mark.parametrize("how", ["superseded", "ended"])
async def test_renewing_what_is_over_does_nothing(core: Core, how: str) -> None:
    """There is no record to renew, and none is made."""
    session = await (await over(core, how)).request()

    await session.renew()

    assert core.store.calls == {"load": 1}


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

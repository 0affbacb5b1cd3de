""" "Keep me signed in", and sessions with an end of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.ioloop import IOLoop

from stormcellar import Lifetime, SessionChanged
from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.request_info import Client
from stormcellar.sessions.session import state_of
from tests.support.browser import Browser
from tests.support.cookie_samples import Response
from tests.support.core import SAFE, Core, Visitor
from tests.support.embedding import Lab, cookie_lines, post_json

DAY = 86_400
LASTING = Lifetime(remember_s=30 * DAY)


def lived(core: Core, seconds: float) -> int:
    """Return the time in ms so many seconds from now."""
    return core.manager.now_ms() + round(1000 * seconds)


@pytest.mark.gen_test
async def test_who_asks_is_kept_signed_in() -> None:  # A12, B2
    """Their session has limits of its own, and slides by them; that of others does not."""
    core = Core(lifetime=Lifetime(remember_s=30 * DAY, remember_idle_s=7 * DAY))
    asked, other = Visitor(core), Visitor(core)
    session = await asked.signs_in("ada", remember=True)
    await other.signs_in("ada")
    made = await core.stored(asked.sid)
    began_ms = core.manager.now_ms()
    core.clock.advance(6 * DAY)
    later = await asked.request()
    later["a"] = 1
    await asked.answer(later)
    slid = await core.stored(asked.sid)

    assert state_of(session).marks.is_remembered
    assert (made.expires_ms, made.deadline_ms) == (began_ms + 7 * DAY * 1000, began_ms + 30 * DAY * 1000)
    assert slid.expires_ms == lived(core, 7 * DAY)
    assert (await other.request(SAFE)).user is None


@pytest.mark.gen_test
async def test_without_the_setting_nobody_is_kept() -> None:
    """A form with the box forged gets the usual limits, and so does a session from before it was off."""
    core = Core()
    visitor = Visitor(core)
    session = await visitor.signs_in("ada", remember=True)
    record = await core.stored(visitor.sid)
    lasting = Core(core.store.inner, clock=core.clock, lifetime=LASTING)
    kept = Visitor(lasting)
    await kept.signs_in("bob", remember=True)
    core.clock.advance(1000)
    after = await kept.twin(core).request()
    after["a"] = 1
    await after.renew()

    assert (state_of(session).marks.is_remembered, record.deadline_ms) == (False, lived(core, 43_200 - 1000))
    assert after.record is not None
    assert after.record.expires_ms == lived(core, 1800)


@pytest.mark.gen_test
async def test_a_new_id_and_a_new_proof_keep_it() -> None:  # C2
    """Renewing, and proving again who one is, change neither the kind of a session nor its idle limit."""
    core = Core(lifetime=LASTING)
    visitor = Visitor(core)
    await visitor.signs_in("ada", remember=True)
    core.clock.advance(DAY)
    renewed = await visitor.request()
    await renewed.renew()
    await visitor.answer(renewed)
    deadline_ms = (await core.stored(visitor.sid)).deadline_ms
    again = await visitor.signs_in("ada")

    assert state_of(renewed).marks.is_remembered
    assert deadline_ms == lived(core, 29 * DAY)
    assert state_of(again).marks.is_remembered
    assert (await core.stored(visitor.sid)).deadline_ms == lived(core, 30 * DAY)


@pytest.mark.gen_test
async def test_another_user_does_not_inherit_it() -> None:
    """Signing in over a session that lasts, without asking, makes one that does not."""
    core = Core(lifetime=LASTING)
    visitor = Visitor(core)
    await visitor.signs_in("ada", remember=True)
    session = await visitor.signs_in("bob")

    assert not state_of(session).marks.is_remembered
    assert (await core.stored(visitor.sid)).deadline_ms == lived(core, 43_200)


@pytest.mark.gen_test
async def test_nothing_that_a_client_says_makes_it_last() -> None:  # C4
    """Neither the name of a browser nor a key of the data is taken for the box."""
    core = Core(lifetime=LASTING)
    client = Client('"remember":true', '", "remember": true, "x": "')
    visitor = Visitor(core)
    session = await visitor.request(SAFE._replace(client=client))
    session["remember"] = True
    await session.login("ada", keep={"remember"})

    assert not state_of(session).marks.is_remembered


# --- expire_in ---


@pytest.mark.gen_test
async def test_a_session_can_be_given_an_end() -> None:  # B2
    """It ends then, to the millisecond, whatever its activity; the session ID changes with it."""
    core = Core()
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    old = visitor.sid
    session = await visitor.request()
    session["a"] = 1
    await session.expire_in(120)
    await visitor.answer(session)
    changed = visitor.sid != old
    core.clock.advance(119.999)
    await visitor.writes(b=2)
    before = await visitor.reads()
    core.clock.advance(0.001)

    assert changed
    assert before == {"a": 1, "b": 2}
    assert (await visitor.request(SAFE)).user is None


@pytest.mark.gen_test
async def test_an_end_only_ever_comes_sooner() -> None:  # B3
    """A later one changes nothing: only a proof of who it is starts the time anew."""
    core = Core(lifetime=Lifetime(absolute_s=3600))
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    session = await visitor.request()
    await session.expire_in(7200)
    await visitor.answer(session)

    assert (await core.stored(visitor.sid)).deadline_ms == lived(core, 3600)


@pytest.mark.gen_test
async def test_an_end_can_be_given_before_there_is_a_record() -> None:
    """The session that the same request makes has it; without one, nothing happens."""
    core = Core()
    visitor, nobody = Visitor(core), Visitor(core)
    session = await visitor.request()
    await session.expire_in(60)
    session["a"] = 1
    await visitor.answer(session)
    idle = await nobody.request()
    await idle.expire_in(60)
    await nobody.answer(idle)

    assert (await core.stored(visitor.sid)).deadline_ms == lived(core, 60)
    assert nobody.sid is None


@pytest.mark.gen_test
async def test_of_two_ends_the_sooner_holds() -> None:
    """Whatever comes after them in the same request."""
    core = Core()
    visitor = Visitor(core)
    session = await visitor.request()
    await session.expire_in(100)
    await session.expire_in(200)
    await session.login("ada")
    await visitor.answer(session)

    assert (await core.stored(visitor.sid)).deadline_ms == lived(core, 100)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
@pytest.mark.gen_test
async def test_an_end_is_a_positive_number_of_seconds(seconds: float) -> None:
    """Anything else is refused and changes nothing."""
    core = Core()
    visitor = Visitor(core)
    session = await visitor.signs_in("ada")
    with pytest.raises(ValueError, match="positive number"):
        await session.expire_in(seconds)

    assert (await core.stored(visitor.sid)).deadline_ms == lived(core, 43_200)


@pytest.mark.gen_test
async def test_an_end_for_a_session_that_changed_meanwhile_is_refused() -> None:  # D2
    """The other request's ID stays good."""
    core = Core()
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    slow = await visitor.twin().request()
    await visitor.signs_in("ada")
    with pytest.raises(SessionChanged):
        await slow.expire_in(60)

    assert isinstance(visitor.sid, SessionId)
    assert (await core.stored(visitor.sid)).deadline_ms == lived(core, 43_200)


# --- over HTTP ---


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """An application that keeps people signed in for thirty days if they ask."""
    lab = Lab(lifetime=LASTING)
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


@pytest.mark.parametrize(
    ("remember", "max_ages"), [(True, [30 * DAY, 30 * DAY - 900]), (False, [None, None])]
)
@pytest.mark.gen_test
async def test_the_cookie_lasts_as_long_as_the_session(
    remember: bool, max_ages: list[int | None], lab: Lab, http_client: AsyncHTTPClient, http_port: int
) -> None:  # A12
    """Those who ask keep it until the deadline, also under a new ID; the others until the browser closes."""

    async def sign_in(self: Any) -> None:
        await self.session.login("ada", remember=remember)

    async def renew(self: Any) -> None:
        await self.session.renew()

    lab.serve("/in", post=sign_in)
    lab.serve("/renew", post=renew)
    browser = Browser(http_client, f"http://127.0.0.1:{http_port}")
    signed_in = await post_json(browser, "/in")
    lab.clock.advance(900)
    renewed = await post_json(browser, "/renew")

    lines = [line for response in (signed_in, renewed) for line in cookie_lines(response)]
    found = [re.search(r"Max-Age=(\d+)", line) for line in lines]
    assert [match and int(match[1]) for match in found] == max_ages
    assert not any("expires" in line.lower() for line in lines)


@pytest.mark.gen_test
async def test_a_lasting_cookie_is_read_until_its_session_ends() -> None:  # A12
    """Its signature does not grow too old before."""
    core = Core(lifetime=LASTING)
    visitor, response = Visitor(core), Response()
    await visitor.signs_in("ada", remember=True)
    assert visitor.sid is not None
    core.manager.cookies.write(response, visitor.sid)
    core.clock.advance(30 * DAY)

    assert core.manager.cookies.read([response[0].partition(";")[0]]) == visitor.sid


@pytest.mark.gen_test
async def test_an_end_given_before_the_sign_in_holds_for_it() -> None:
    """In one request, in either order, with a record or without one; a later sign-in starts the time anew."""
    core = Core()
    without, with_one = Visitor(core), Visitor(core)
    await with_one.writes(cart=1)
    ends = []
    for visitor in (without, with_one):
        session = await visitor.request()
        await session.expire_in(300)
        await session.login("ada")
        await visitor.answer(session)
        ends.append((await core.stored(visitor.sid)).deadline_ms)
    await with_one.signs_in("ada")

    assert ends == [lived(core, 300)] * 2
    assert (await core.stored(with_one.sid)).deadline_ms == lived(core, 43_200)


@pytest.mark.gen_test
async def test_an_unticked_box_ends_it_with_the_browser() -> None:
    """Who signs in again without the box is not kept; who is asked for a proof stays as they were."""
    core = Core(lifetime=LASTING)
    visitor = Visitor(core)
    await visitor.signs_in("ada", remember=True)
    proof = await visitor.signs_in("ada")
    unticked = await visitor.signs_in("ada", remember=False)

    assert (state_of(proof).marks.is_remembered, state_of(unticked).marks.is_remembered) == (True, False)

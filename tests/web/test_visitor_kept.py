"""A visitor's session that outlives the browser: its cookie is sent again while it is used."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.httpclient import HTTPResponse
from tornado.ioloop import IOLoop

from stormcellar import Lifetime
from stormcellar.sessions.session import state_of
from stormcellar.stores import Delta, StoreUnavailable
from tests.support.browser import Browser
from tests.support.core import Core, Visitor
from tests.support.embedding import Lab, cookie_lines, count, look, post_json, set_names

HOUR, DAY = 3600, 86_400
KEPT = Lifetime(anonymous_remember_s=30 * DAY)


async def sign_in(self: Any) -> None:
    """Sign in; the visits survive."""
    await self.session.login("ada", keep={"visits"})


async def sign_out(self: Any) -> None:
    """Sign out."""
    await self.session.logout()


async def slow(self: Any) -> None:
    """Answer when the test says so."""
    self.application.settings["reached"].set()
    await self.application.settings["go"].wait()
    self.write(dict(self.session))


def broken(self: Any) -> None:
    """Fail."""
    self.set_status(500)


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """An application that keeps visitors' sessions for thirty days."""
    lab = Lab(lifetime=KEPT, settings={"reached": asyncio.Event(), "go": asyncio.Event()})
    lab.serve("/", get=look, post=count)
    lab.serve("/poll", get=look, session_activity=False)
    lab.serve("/in", post=sign_in)
    lab.serve("/out", post=sign_out)
    lab.serve("/slow", get=slow)
    lab.serve("/broken", get=broken)
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


def max_age(response: HTTPResponse) -> int | None:
    """Return the Max-Age of the one cookie that *response* sets; None if it has none."""
    [line] = cookie_lines(response)
    found = re.search(r"; Max-Age=(\d+);", line)
    return int(found[1]) if found else None


@pytest.mark.gen_test
async def test_cart_outlives_the_browser(lab: Lab, browser: Browser) -> None:  # A12, B11
    """The cookie lasts as long as the session: thirty days after the last visit."""
    response = await post_json(browser)
    lab.clock.advance(30 * DAY - 1)
    before = await browser.get("/")
    lab.clock.advance(30 * DAY)
    after = await browser.get("/")

    assert max_age(response) == 30 * DAY
    assert b'"visits": 1' in before.body
    assert b'"visits"' not in after.body


@pytest.mark.gen_test
async def test_cookie_is_sent_again_once_a_day(lab: Lab, browser: Browser) -> None:  # A12, F6
    """To a visitor who only reads, on one response a day, under the same ID, closed to shared caches."""
    sid = await lab.open_session(browser, visits=7)
    sent = []
    for _ in range(4 * 40):
        lab.clock.advance(6 * HOUR)
        sent.append(await browser.get("/"))
    again = [response for response in sent if cookie_lines(response)]

    assert [sent.index(response) for response in again] == list(range(3, 160, 4))
    assert {max_age(response) for response in again} == {30 * DAY}
    assert {response.headers["Cache-Control"] for response in again} == {"no-store"}
    assert {response.headers["Vary"] for response in again} == {"Cookie"}
    assert lab.sessions.cookies.read([f"id={browser.cookies['id']}"]) == sid
    assert all(b'"visits": 7' in response.body for response in sent)


@pytest.mark.gen_test
async def test_lost_response_loses_no_cart(lab: Lab, browser: Browser) -> None:  # D12
    """The old cookie stays valid, and the next request sends it again."""
    await lab.open_session(browser, visits=7)
    lab.clock.advance(DAY)
    old = dict(browser.cookies)
    await browser.get("/")
    browser.cookies = old
    lab.clock.advance(HOUR)

    response = await browser.get("/")

    assert b'"visits": 7' in response.body
    assert max_age(response) == 30 * DAY


@pytest.mark.gen_test
async def test_write_saves_and_sends_it_again(lab: Lab, browser: Browser) -> None:
    """In one response, with what was written."""
    await lab.open_session(browser, visits=7)
    lab.clock.advance(DAY)

    response = await post_json(browser)

    assert response.body == b"visit 8"
    assert max_age(response) == 30 * DAY
    assert await lab.data() == {"visits": 8}


@pytest.mark.parametrize(("path", "status"), [("/poll", 200), ("/broken", 500)])
@pytest.mark.gen_test
async def test_what_is_no_activity_sends_nothing(path: str, status: int, lab: Lab, browser: Browser) -> None:
    """Neither polling nor a failure keeps a session; the next page does."""  # B8
    await lab.open_session(browser, visits=7)
    lab.clock.advance(DAY)

    response = await browser.get(path)

    assert (response.code, cookie_lines(response)) == (status, [])
    assert set_names(await browser.get("/")) == ["id"]


@pytest.mark.gen_test
async def test_signing_in_sets_the_limits_of_users(lab: Lab, browser: Browser) -> None:  # B3
    """The session of a user ends with the browser, and at the usual times; the cart comes along."""
    await lab.open_session(browser, visits=7)
    lab.clock.advance(10 * DAY)
    signed_in = await post_json(browser, "/in")
    [record] = await lab.records()
    lab.clock.advance(1799)
    inside = await browser.get("/")
    lab.clock.advance(2 * DAY)
    over = await browser.get("/")

    assert max_age(signed_in) is None
    assert record.deadline_ms - record.rotated_ms == 43_200_000
    assert record.expires_ms - record.rotated_ms == 1_800_000
    assert b'"ada"' in inside.body and cookie_lines(inside) == []
    assert b'"ada"' not in over.body


@pytest.mark.parametrize("path", ["/in", "/out"])
@pytest.mark.gen_test
async def test_slow_response_does_not_replace_a_later_cookie(path: str, lab: Lab, browser: Browser) -> None:
    """The session was signed in, or ended, while a page was made: that page sends no cookie."""  # D2
    await lab.open_session(browser, visits=7)
    lab.clock.advance(DAY)
    waiting = asyncio.ensure_future(browser.copy().get("/slow"))
    await asyncio.wait_for(lab.app.settings["reached"].wait(), 5)
    await post_json(browser, path)
    lab.app.settings["go"].set()

    late = await waiting

    assert (late.code, cookie_lines(late)) == (200, [])


@pytest.mark.gen_test
async def test_outage_at_that_moment_changes_no_response(lab: Lab, browser: Browser) -> None:  # G13
    """The page was read already; the next one sends the cookie."""
    await lab.open_session(browser, visits=7)
    lab.clock.advance(DAY)
    waiting = asyncio.ensure_future(browser.copy().get("/slow"))
    await asyncio.wait_for(lab.app.settings["reached"].wait(), 5)
    lab.store.fail["load"] = StoreUnavailable("load")
    lab.app.settings["go"].set()
    response = await waiting
    lab.store.fail.clear()

    assert (response.code, cookie_lines(response)) == (200, [])
    assert set_names(await browser.get("/")) == ["id"]


@pytest.mark.gen_test
async def test_with_renewal_the_new_id_is_sent() -> None:  # C13
    """Renewing the ID sends a cookie with the visitor's Max-Age; the ID in its grace is not sent again."""
    core = Core(lifetime=Lifetime(anonymous_remember_s=30 * DAY, renew_s=2 * DAY))
    visitor = Visitor(core)
    session = await visitor.writes(cart=1)
    state = state_of(session)
    core.clock.advance(3 * DAY)
    loaded = state_of(await visitor.request())
    await core.manager.lifecycle.commit_and_renew(loaded, Delta())

    assert core.manager.cookie_max_age_s(state) == 30 * DAY
    assert core.manager.cookie_max_age_s(loaded) == 30 * DAY
    assert loaded.record is not None and state.record is not None
    assert not KEPT.wants_cookie_again(
        loaded.record, signed_s=state.record.rotated_ms // 1000, now_ms=core.manager.now_ms()
    )


@pytest.mark.gen_test
async def test_limit_of_the_application_holds(lab: Lab, browser: Browser) -> None:  # B2
    """`expire_in` shortens a visitor's session, and its cookie."""

    async def shorten(self: Any) -> None:
        self.session["a"] = 1
        await self.session.expire_in(300)

    lab.serve("/short", post=shorten)
    response = await post_json(browser, "/short")

    assert max_age(response) == 300

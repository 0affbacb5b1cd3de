"""Slow responses to requests with an old cookie: none of them removes a newer one."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.embedding import Lab, count, look, post_json, set_names


@pytest.fixture
def lab():
    """An application without a handler of its own."""
    return Lab()


async def _login(self):
    await self.session.login("alice")


@pytest.mark.parametrize("how", ["expired", "ended"])
@pytest.mark.gen_test
async def test_a_long_poll_does_not_clear_the_cookie_of_a_sign_in(how, lab, browser):
    """It began with the cookie of a session that was over, and answers after a sign-in with that cookie."""
    is_waiting, may_answer = asyncio.Event(), asyncio.Event()

    async def poll(self):
        is_waiting.set()
        await may_answer.wait()
        self.request._start_time -= 2

    lab.serve("/poll", get=poll)
    lab.serve("/login", post=_login)
    lab.serve("/", get=look)
    sid = await lab.open_session(browser, user="alice")
    if how == "ended":
        await lab.end(sid.handle)
    lab.clock.advance(1800)

    polling = asyncio.ensure_future(browser.get("/poll"))
    await is_waiting.wait()
    await post_json(browser, "/login")
    may_answer.set()
    polled = await polling
    page = await browser.get("/")

    assert (polled.code, set_names(polled)) == (200, [])
    assert json.loads(page.body)["user"] == "alice"


@pytest.mark.gen_test
async def test_a_slow_page_with_a_form_clears_the_old_cookie(lab, browser):
    """Its token is bound to the nonce, so the form has an effect."""

    async def form(self):
        self.request._start_time -= 2
        self.write(self.xsrf_form_html())

    lab.serve("/", get=form, post=count)
    await lab.open_session(browser, user="alice")
    lab.clock.advance(1800)

    response = await browser.submit("/", "/")

    assert (response.code, response.body) == (200, b"visit 1")


@pytest.mark.gen_test
async def test_a_slow_sign_out_clears_the_cookie(lab, browser):
    """Who asked for it gets it, however long it takes."""

    async def sign_out(self):
        self.request._start_time -= 20
        await self.session.logout()

    lab.serve("/", post=sign_out)
    await lab.open_session(browser, user="alice")

    assert set_names(await post_json(browser)) == ["-id"]

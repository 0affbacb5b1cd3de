"""`@reauthenticated`: signed in is not enough, the proof must be recent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from stormcellar import Lifetime, reauthenticated
from tests.support.browser import Browser
from tests.support.embedding import Lab, post_json, set_names

CONFIRM = {"reauthenticate_url": "/confirm?from=key"}


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """A page and an action that want a proof of the last five minutes, and one that proves."""
    lab = Lab(settings=CONFIRM, lifetime=Lifetime(reauth_s=600))
    lab.serve("/keys", get=_five_minutes, post=_five_minutes)
    lab.serve("/default", get=_default)
    lab.serve("/bare", get=_bare)
    lab.serve("/confirm", post=_confirm)
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


@reauthenticated(within=300)
async def _five_minutes(self: Any) -> None:
    self.session["reached"] = True
    self.write("the key")


@reauthenticated
async def _bare(self: Any) -> None:
    self.write("the key")


@reauthenticated()
def _default(self: Any) -> None:
    self.write("the key")


async def _confirm(self: Any) -> None:
    await self.session.login(self.session.user)


@pytest.mark.gen_test
async def test_a_recent_proof_is_enough_to_the_millisecond(lab: Lab, browser: Browser) -> None:  # E16
    """Within the time the method runs, after it a page leads to where it can be proved."""
    await lab.open_session(browser, user="ada")
    lab.clock.advance(299.999)
    within = await browser.get("/keys?a=1&b=%2F")
    lab.clock.advance(0.001)
    after = await browser.get("/keys?a=1&b=%2F")

    assert (within.code, within.body) == (200, b"the key")
    assert (after.code, after.body) == (303, b"")
    assert after.headers["Location"] == "/confirm?from=key&next=%2Fkeys%3Fa%3D1%26b%3D%252F"


@pytest.mark.gen_test
async def test_the_decorator_works_without_parentheses(lab: Lab, browser: Browser) -> None:
    """It is the same as with empty ones."""
    await lab.open_session(browser, user="ada")
    assert (await browser.get("/bare")).body == b"the key"
    lab.clock.advance(600)
    assert (await browser.get("/bare")).code == 303


@pytest.mark.gen_test
async def test_without_a_time_the_lifetime_says_it(lab: Lab, browser: Browser) -> None:
    """`Lifetime.reauth_s` is what holds; a method that is not async works too."""
    await lab.open_session(browser, user="ada")
    lab.clock.advance(599)
    within = await browser.get("/default")
    lab.clock.advance(1)

    assert (within.code, (await browser.get("/default")).code) == (200, 303)


@pytest.mark.gen_test
async def test_what_was_posted_is_refused_and_never_sent_again(lab: Lab, browser: Browser) -> None:  # E16
    """Nothing is done and nothing saved; the answer says why."""
    await lab.open_session(browser, user="ada")
    lab.clock.advance(300)
    refused = await post_json(browser, "/keys")
    data = await lab.data()

    assert (refused.code, data) == (403, {})


@pytest.mark.gen_test
async def test_a_proof_changes_the_id_and_opens_the_door(lab: Lab, browser: Browser) -> None:  # C2
    """The old ID is dead; with the new one the action runs."""
    old = await lab.open_session(browser, user="ada")
    lab.clock.advance(300)
    thief = browser.copy()
    proved = await post_json(browser, "/confirm")
    done = await post_json(browser, "/keys")

    assert (set_names(proved), done.code) == (["id"], 200)
    assert old.handle in {record.handle for record in await lab.records()}
    assert (await post_json(thief, "/keys")).code == 403
    assert await lab.data() == {"reached": True}


@pytest.mark.gen_test
async def test_a_visitor_is_sent_to_sign_in(lab: Lab, browser: Browser) -> None:
    """As by `tornado.web.authenticated`: a page leads to the sign-in, an action is refused."""
    page = await browser.get("/keys")
    action = await post_json(browser, "/keys")

    assert (page.code, page.headers["Location"]) == (302, "/login?next=%2Fkeys")
    assert action.code == 403


@pytest.mark.gen_test
async def test_a_handler_may_ask_in_place(lab: Lab, browser: Browser) -> None:
    """An override that says yes lets the method run; one that answers does not."""

    async def ask(self: Any) -> bool:
        if self.get_query_argument("proof", "") == "good":
            await self.session.login(self.session.user)
            return True
        self.write({"asked": True})
        return False

    lab.serve("/in-place", get=_five_minutes, reauthenticate=ask)
    await lab.open_session(browser, user="ada")
    lab.clock.advance(300)
    asked = await browser.get("/in-place")
    proved = await browser.get("/in-place?proof=good")

    assert json.loads(asked.body) == {"asked": True}
    assert (proved.body, set_names(proved)) == (b"the key", ["id"])


@pytest.mark.gen_test
async def test_without_a_page_to_ask_on_everything_is_refused(browser: Browser, lab: Lab) -> None:
    """A page, too, is answered 403 where no setting says where to prove it."""
    lab.app.settings.pop("reauthenticate_url")
    await lab.open_session(browser, user="ada")
    lab.clock.advance(300)

    assert (await browser.get("/keys")).code == 403


@pytest.mark.parametrize("within", [0, -1, float("nan")])
def test_a_time_must_be_positive(within: float) -> None:
    """What could never, or always, be true is refused where it is written."""
    with pytest.raises(ValueError, match="within must be a positive number"):
        reauthenticated(within=within)

"""The store fails in the middle of an action: the response says what is done; the rest is safe."""

from __future__ import annotations

import asyncio
import json

import pytest
from tornado.httpclient import HTTPResponse

from stormcellar.accounts.directory import MemoryAccounts
from stormcellar.accounts.passwords import PasswordChecker
from stormcellar.events import Kind
from stormcellar.stores import StoreFull, StoreUnavailable
from tests.support.browser import Browser, token
from tests.support.fakes import Clock
from tests.support.site import ACCOUNTS, CHEAP, JSON, PASSWORD, OpenSite, Site, session_handle, sign_in

PAGE = "/account/password"
OTHERS = "/account/sessions/revoke-others"
NEW = "a storm in the cellar"
SIGNED_OUT = b"Your password was changed, and you were signed out. Sign in with the new one."
CHANGED = b"Your password was changed. You are signed out everywhere else."


@pytest.fixture
def site(open_site: OpenSite) -> Site:
    """A site whose accounts use its clock."""
    clock, checker = Clock(), PasswordChecker(argon2_hasher=CHEAP)
    accounts = MemoryAccounts(ACCOUNTS, checker=checker, clock=clock)
    return open_site(clock=clock, checker=checker, accounts=accounts)


async def user_of(browser: Browser) -> str | None:
    """Return who is signed in there."""
    _, body = await browser.json("GET", "/session")
    return body["user"]  # type: ignore[no-any-return]


async def change(browser: Browser, accept: str = "text/html") -> HTTPResponse:
    """Change the password, with a form or with JSON."""
    if accept == JSON:
        body = json.dumps({"current": PASSWORD, "new": NEW})
        return await browser.fetch("POST", PAGE, body=body, headers={"Content-Type": JSON, "Accept": JSON})
    return await browser.submit(PAGE, PAGE, current=PASSWORD, new=NEW)


def break_call(site: Site, call: str, moment: str, error: Exception | None = None) -> None:
    """Let *call* fail from now on, before or after the store executes it."""
    failing = site.store.fail if moment == "before" else site.store.fail_after
    failing[call] = error or StoreUnavailable(call)


def mend(site: Site) -> None:
    """Let every call succeed again, a second later."""
    site.store.fail.clear()
    site.store.fail_after.clear()
    site.clock.advance(1)


# --- a new password ---


@pytest.mark.gen_test
@pytest.mark.parametrize("accept", ["text/html", JSON])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("error", [StoreUnavailable("x"), StoreFull("x"), RuntimeError("x")])
async def test_a_changed_password_is_told_although_the_session_ended(
    error: Exception, moment: str, accept: str, site: Site
) -> None:
    """Without its new ID this session counts no more, nor does any other; the new password opens."""
    browser, other = await site.signed_in(), await site.signed_in()
    site.clock.advance(1)
    break_call(site, "rotate", moment, error)
    response = await change(browser, accept)
    mend(site)

    assert (response.code, response.headers.get("Retry-After")) == (409, None)
    assert (SIGNED_OUT in response.body, b"Try again" in response.body) == (True, False)
    if accept == JSON:
        assert json.loads(response.body)["error"]["code"] == "password_changed"
    else:
        assert b'<a class="button" href="/login">Sign in</a>' in response.body
    assert [await user_of(each) for each in (browser, other)] == [None, None]  # C10
    assert (await sign_in(site.browser(), password=PASSWORD)).code == 401
    assert (await sign_in(browser, password=NEW)).code == 303
    assert await user_of(browser) == "alice"


@pytest.mark.gen_test
async def test_a_failure_after_the_change_is_still_an_event(site: Site) -> None:
    """The audit log has the change, and the failure of the store beside it."""
    browser = await site.signed_in()
    site.clock.advance(1)
    break_call(site, "rotate", "before")
    await change(browser)

    kinds = [event.kind for event in site.events]
    assert (kinds.count(Kind.PASSWORD_CHANGED), kinds.count(Kind.STORE_FAILED)) == (1, 1)  # I1


@pytest.mark.gen_test
@pytest.mark.parametrize("call", ["of_user", "destroy"])
async def test_sessions_that_could_not_be_ended_count_no_more(call: str, site: Site) -> None:
    """The change is told as a success: of the others only records are left, which nobody can use."""
    browser, other = await site.signed_in(), await site.signed_in()
    site.clock.advance(1)
    break_call(site, call, "before")
    page = await change(browser)
    mend(site)
    home = await browser.get("/")

    assert (page.code, page.headers["Location"], CHANGED in home.body) == (303, "/", True)
    assert [await user_of(browser), await user_of(other)] == ["alice", None]  # C10
    _, listed = await browser.json("GET", "/account/sessions")
    assert [each["current"] for each in listed["sessions"]] == [True]
    assert Kind.STORE_FAILED in [event.kind for event in site.events]


@pytest.mark.gen_test
@pytest.mark.parametrize("call", ["of_user", "destroy"])
async def test_a_script_is_told_the_same(call: str, site: Site) -> None:
    """The JSON interface answers as after any change."""
    browser, other = await site.signed_in(), await site.signed_in()
    site.clock.advance(1)
    break_call(site, call, "before")
    response = await change(browser, JSON)
    mend(site)

    assert (response.code, [await user_of(browser), await user_of(other)]) == (204, ["alice", None])


@pytest.mark.gen_test
async def test_a_message_that_cannot_be_kept_is_shown_at_once(site: Site) -> None:
    """The store fails when the message for the next page is saved: the response itself has the message."""
    browser = await site.signed_in()
    site.clock.advance(1)
    break_call(site, "apply", "before")
    page = await change(browser)
    mend(site)

    assert (page.code, page.headers.get("Retry-After")) == (200, None)
    assert CHANGED in page.body and b'<a class="button" href="/account/password">Continue</a>' in page.body
    assert await user_of(browser) == "alice"


@pytest.mark.gen_test
@pytest.mark.parametrize(("call", "told"), [("rotate", SIGNED_OUT), ("of_user", CHANGED)])
async def test_a_step_that_is_cancelled_is_told_the_same(call: str, told: bytes, site: Site) -> None:
    """A driver that is stopped raises CancelledError; the password is changed all the same."""
    browser = await site.signed_in()
    site.clock.advance(1)
    site.store.fail[call] = asyncio.CancelledError()  # type: ignore[assignment]
    page = await change(browser)
    mend(site)

    assert told in page.body
    assert (await sign_in(site.browser(), password=NEW)).code == 303


# --- the ends of sessions ---


@pytest.mark.gen_test
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_session_that_may_live_on_is_told_so(moment: str, site: Site) -> None:
    """Whether it is another one or this one; the next try ends it, or finds that it has ended."""
    for which in range(2):
        browser, other = await site.signed_in(), await site.signed_in()
        handle = session_handle(site, (browser, other)[which])
        xsrf = token(await browser.get("/account/sessions"))
        break_call(site, "destroy", moment)
        failed = await browser.post_form(f"/account/sessions/{handle}/revoke", xsrf)
        mend(site)
        again = await browser.post_form(f"/account/sessions/{handle}/revoke", xsrf)

        assert failed.code == 503
        assert b"so the session may still be signed in." in failed.body
        assert again.code in ((303,) if moment == "before" else (303, 404))
        assert handle not in [record.handle for record in await site.records()]


@pytest.mark.gen_test
async def test_half_of_the_others_is_told_as_what_it_is(site: Site) -> None:
    """One of three has ended when the store fails; the next try ends the rest, and this one goes on."""
    browser, others = await site.signed_in(), [await site.signed_in() for _ in range(3)]
    xsrf = token(await browser.get("/account/sessions"))
    gates = [site.store.gate("destroy") for _ in range(2)]
    ending = asyncio.ensure_future(browser.post_form(OTHERS, xsrf))
    await gates[0].reached()
    gates[0].open()
    await gates[1].reached()
    break_call(site, "destroy", "before")
    gates[1].open()
    failed = await ending
    mend(site)
    left = len(await site.records())
    again = await browser.post_form(OTHERS, xsrf)

    assert (failed.code, left, again.code) == (503, 3, 303)
    assert b"so some of the other sessions may still be signed in." in failed.body
    assert [await user_of(each) for each in (browser, *others)] == ["alice", None, None, None]


@pytest.mark.gen_test
async def test_what_was_ended_is_told_although_the_message_cannot_be_kept(site: Site) -> None:
    """After one session, and after all the others."""
    for path, told in (("{}/revoke", b"The session was"), ("revoke-others", b"All other sessions were")):
        browser, other = await site.signed_in(), await site.signed_in()
        action = f"/account/sessions/{path.format(session_handle(site, other))}"
        xsrf = token(await browser.get("/account/sessions"))
        break_call(site, "apply", "before")
        page = await browser.post_form(action, xsrf)
        mend(site)

        assert (page.code, told in page.body, await user_of(other)) == (200, True, None)
        assert b'<a class="button" href="/account/sessions">Continue</a>' in page.body


# --- a second proof ---


@pytest.mark.gen_test
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_proof_that_may_not_count_is_told_so(moment: str, site: Site) -> None:
    """The next try takes it, or leads to sign-in if the ID changed and its answer was lost."""
    browser = await site.signed_in()
    xsrf = token(await browser.get("/account/confirm"))
    break_call(site, "rotate", moment)
    failed = await browser.post_form("/account/confirm", xsrf, password=PASSWORD)
    mend(site)
    again = await browser.post_form("/account/confirm", xsrf, password=PASSWORD, next="/account/sessions")

    assert (failed.code, b"you may have to sign in again." in failed.body) == (503, True)
    expected = "/account/sessions" if moment == "before" else "/login?next=%2F"
    assert (again.code, again.headers["Location"]) == (303, expected)

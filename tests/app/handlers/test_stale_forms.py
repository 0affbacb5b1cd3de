"""A form that another tab made out of date ends well: nothing is lost, and the page says what is true."""

from __future__ import annotations

import pytest
from tornado.httpclient import HTTPResponse

from stormcellar.lifetime import Lifetime
from stormcellar.stores import StoreUnavailable
from tests.support.browser import Browser, token
from tests.support.site import JSON, PASSWORD, OpenSite, Site, session_handle, sign_in

FORM = "application/x-www-form-urlencoded"
OTHERS = "/account/sessions/revoke-others"
STALE = b"This form was out of date, so it was not used."
NO_COOKIE = b"Your browser did not send the cookie of this page."


async def user_of(browser: Browser) -> str | None:
    """Return who is signed in there."""
    _, body = await browser.json("GET", "/session")
    return body["user"]  # type: ignore[no-any-return]


async def post(browser: Browser, path: str, xsrf: str, **fields: str) -> HTTPResponse:
    """Send a form; no answer to it may claim that nothing was done."""
    response = await browser.post_form(path, xsrf, **fields)
    assert b"Nothing was" not in response.body
    return response


# --- sign-in ---


@pytest.mark.gen_test
async def test_who_signed_in_elsewhere_is_led_on(site: Site) -> None:
    """The other tab signed the same person in: the form leads to its page, and changes nothing."""
    browser = site.browser()
    xsrf = token(await browser.get("/login"))
    await sign_in(browser)
    before, calls = dict(browser.cookies), site.store.calls.copy()
    response = await post(
        browser, "/login", xsrf, username="Alice ", password="any", next="/account/sessions"
    )

    assert (response.code, response.headers["Location"]) == (303, "/account/sessions")
    assert browser.cookies == before
    assert site.store.calls - calls == {"load": 1}  # C14


@pytest.mark.gen_test
async def test_it_never_leads_to_another_site(site: Site) -> None:
    """The target is checked as after a sign-in."""
    browser = await site.signed_in()
    for target in ("https://evil.example/", "//evil.example", "/logout"):
        response = await post(browser, "/login", "x", username="alice", password="x", next=target)

        assert (response.code, response.headers["Location"]) == (303, "/")  # E13, E14


@pytest.mark.gen_test
async def test_a_session_begun_in_another_tab_costs_the_password_alone(open_site: OpenSite) -> None:
    """A visitor's session begins there: the form comes again with what was typed, and then works."""
    site = open_site(lifetime=Lifetime(remember_s=86_400))
    browser = site.browser()
    xsrf = token(await browser.get("/login?next=/account/sessions"))
    await browser.json("PATCH", "/session", {"cart": [1]})
    fields = {"username": 'ali"><b>', "next": "/account/sessions", "remember": "yes"}
    again = await post(browser, "/login", xsrf, password=PASSWORD, **fields)
    fields["username"] = "alice"
    done = await post(browser, "/login", token(again), password=PASSWORD, **fields)

    assert (again.code, STALE in again.body) == (403, True)
    assert b' value="ali&quot;&gt;&lt;b&gt;"' in again.body  # F9
    assert b'name="next" value="/account/sessions"' in again.body and b" checked>" in again.body
    assert PASSWORD.encode() not in again.body  # E20
    assert (done.code, done.headers["Location"]) == (303, "/account/sessions")


@pytest.mark.gen_test
async def test_another_person_is_not_taken_for_who_is_signed_in(site: Site) -> None:
    """Bob fills in the form while alice signs in: he reads that she is signed in, and can go on."""
    browser = site.browser()
    xsrf = token(await browser.get("/login"))
    await sign_in(browser)
    again = await post(browser, "/login", xsrf, username="bob", password=PASSWORD)
    still = await user_of(browser)
    done = await post(browser, "/login", token(again), username="bob", password=PASSWORD)

    assert (again.code, STALE in again.body, still) == (403, True, "alice")  # C14
    assert b"You are signed in as <strong>alice</strong>" in again.body and b' value="bob"' in again.body
    assert (done.code, await user_of(browser)) == (303, "bob")


@pytest.mark.gen_test
async def test_a_browser_without_cookies_is_told_so(site: Site) -> None:
    """The page says what to do, again and again, and nobody is signed in."""
    browser = site.browser()
    for _ in range(2):
        xsrf = token(await browser.get("/login"))
        browser.cookies.clear()
        response = await post(browser, "/login", xsrf, username="alice", password=PASSWORD)
        browser.cookies.clear()

        assert (response.code, NO_COOKIE in response.body, STALE in response.body) == (403, True, False)
        assert b"allow cookies for this site" in response.body and b' value="alice"' in response.body
    assert await site.records() == []


@pytest.mark.gen_test
async def test_a_cookie_that_counts_no_more_is_still_a_cookie(site: Site) -> None:
    """Whoever has the cookie of another key is not told to allow cookies."""
    browser = site.browser()
    xsrf = token(await browser.get("/login"))
    browser.cookies = {"id": "2|1:0|10:1900000000|2:id|4:AAAA|" + "0" * 64}
    response = await post(browser, "/login", xsrf, username="alice", password=PASSWORD)

    assert (response.code, STALE in response.body) == (403, True)


@pytest.mark.gen_test
@pytest.mark.parametrize("body", ["", "username=a&username=b&next=%ff&remember=no", "username=%ff&next=//x"])
async def test_what_cannot_be_read_is_left_out(body: str, site: Site) -> None:
    """A malformed form gets an empty one."""
    browser = site.browser()
    response = await browser.fetch("POST", "/login", body=body, headers={"Content-Type": FORM})

    assert response.code == 403
    assert b' name="username" value=""' in response.body and b'name="next" value="/"' in response.body


@pytest.mark.gen_test
async def test_a_script_gets_the_error(site: Site) -> None:
    """JSON has no form to show; it costs no store call, and the message claims nothing."""
    browser = await site.signed_in()
    site.store.calls.clear()
    for path in ("/login", "/logout", "/account/password", "/account/confirm", OTHERS):
        headers = {"Content-Type": FORM, "Accept": JSON}
        response = await browser.fetch("POST", path, body="username=alice", headers=headers)

        assert (response.code, b'"forbidden"' in response.body) == (403, True)
        assert b"Nothing was" not in response.body
    assert site.store.calls.total() == 0


@pytest.mark.gen_test
async def test_a_store_that_is_down_is_told_as_such(site: Site) -> None:
    """Nobody knows then who is signed in."""
    browser = await site.signed_in()
    site.store.fail["load"] = StoreUnavailable("load")

    assert (await post(browser, "/login", "x", username="alice", password="x")).code == 503  # G13


@pytest.mark.gen_test
async def test_the_page_of_who_is_signed_in_leads_on(site: Site) -> None:
    """GET and HEAD show the form, since another person may want to sign in, and a way to the page."""
    browser = await site.signed_in()
    page = await browser.get("/login?next=/account/sessions")
    head = await browser.fetch("HEAD", "/login?next=/account/sessions")

    assert (page.code, head.code) == (200, 200)
    assert b'<a href="/account/sessions">Continue</a>' in page.body  # E15


# --- sign-out ---


@pytest.mark.gen_test
async def test_a_sign_out_that_is_out_of_date_asks_once_more(site: Site) -> None:
    """Alice signed in again, or bob did: the page says who is signed in, and its button signs out."""
    for user in ("alice", "bob"):
        browser = await site.signed_in()
        xsrf = token(await browser.get("/"))
        await sign_in(browser, user)
        asked = await post(browser, "/logout", xsrf)
        still = await user_of(browser)
        done = await post(browser, "/logout", token(asked))

        assert (asked.code, still) == (403, user)  # C6
        assert f"You are still signed in as <strong>{user}</strong>".encode() in asked.body
        assert (done.code, await user_of(browser)) == (303, None)


@pytest.mark.gen_test
async def test_who_is_signed_out_already_is_told_so(site: Site) -> None:
    """Another tab signed out, and then began a visitor's session: the form leads to the signed-out page."""
    browser = await site.signed_in()
    xsrf = token(await browser.get("/"))
    await browser.submit("/", "/logout")
    await browser.json("PATCH", "/session", {"cart": [1]})
    response = await post(browser, "/logout", xsrf)

    assert (response.code, response.headers["Location"]) == (303, "/signed-out")
    assert (await browser.json("GET", "/session"))[1]["data"] == {"cart": [1]}


# --- the forms of a user ---

FORMS = {
    "/account/password": {"current": PASSWORD, "new": "typed-password-7"},
    "/account/confirm": {"password": PASSWORD, "next": "/account/sessions"},
    OTHERS: {},
    "/account/sessions/{}/revoke": {},
}


@pytest.mark.gen_test
@pytest.mark.parametrize("user", ["alice", "bob"])
@pytest.mark.parametrize("path", FORMS)
async def test_a_form_of_a_user_comes_again(path: str, user: str, site: Site) -> None:
    """The session has a new ID, or another user: the form is not used, and its page says so."""
    other, browser = await site.signed_in(), await site.signed_in()
    path, fields = path.format(session_handle(site, other)), FORMS[path]
    xsrf = token(await browser.get("/account/sessions"))
    await sign_in(browser, user)
    before = dict(browser.cookies)
    response = await post(browser, path, xsrf, **fields)

    assert (response.code, STALE in response.body) == (403, True)
    assert (browser.cookies, await user_of(browser), await user_of(other)) == (before, user, "alice")  # F1
    assert b"typed-password" not in response.body  # E20
    assert user.encode() in response.body


@pytest.mark.gen_test
@pytest.mark.parametrize("path", FORMS)
async def test_without_a_user_it_leads_to_sign_in(path: str, site: Site) -> None:
    """The session has ended, and another began."""
    browser = await site.signed_in()
    xsrf = token(await browser.get("/account/sessions"))
    await browser.submit("/", "/logout")
    await browser.json("PATCH", "/session", {"cart": [1]})
    response = await post(browser, path.format("A" * 22), xsrf, **FORMS[path])

    page = {"/account/password": "%2Faccount%2Fpassword", "/account/confirm": "%2F"}
    expected = page.get(path, "%2Faccount%2Fsessions")
    assert (response.code, response.headers["Location"]) == (303, f"/login?next={expected}")


@pytest.mark.gen_test
async def test_a_message_for_the_next_page_is_not_lost_to_it(site: Site) -> None:
    """A form that was refused changes nothing, so it takes no message away."""
    browser, other = await site.signed_in(), await site.signed_in()
    xsrf = token(await browser.get("/account/sessions"))
    await post(browser, f"/account/sessions/{session_handle(site, other)}/revoke", xsrf)
    refused = await post(browser, OTHERS, "x")
    page = await browser.get("/account/sessions")

    assert [b"The session was signed out." in each.body for each in (refused, page)] == [False, True]  # F1

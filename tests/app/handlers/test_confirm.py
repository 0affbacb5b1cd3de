"""Giving the password again: when it is asked for, what goes on afterwards, and what cannot be done twice."""

from __future__ import annotations

import asyncio
import re
from html import unescape

import pytest
from tornado.httpclient import HTTPResponse

from stormcellar import reauthenticated
from stormcellar.accounts.throttle import Rules
from stormcellar.app.handlers.base import signed_in
from stormcellar.app.handlers.confirm import ConfirmingPage
from stormcellar.app.handlers.pages import shows_errors_in_form
from stormcellar.events import Kind
from tests.support.browser import Browser, token
from tests.support.site import ACCOUNTS, PASSWORD, OpenSite, Site, session_handle, sign_in

OTHERS = "/account/sessions/revoke-others"
WHILE_S = 601
FORM = "application/x-www-form-urlencoded"


async def old_session(site: Site) -> Browser:
    """Return a browser in which alice signed in longer ago than is recent."""
    browser = await site.signed_in()
    site.clock.advance(WHILE_S)
    return browser


async def user_of(browser: Browser) -> str | None:
    """Return who is signed in there."""
    _, body = await browser.json("GET", "/session")
    return body["user"]  # type: ignore[no-any-return]


def hidden_fields(page: HTTPResponse) -> list[tuple[str, str]]:
    """Return the hidden fields of the form in the main part of *page*, but for its token."""
    main = page.body.decode().partition("<main")[2]
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', main)
    return [(unescape(name), unescape(value)) for name, value in found if name != "_xsrf"]


# --- in the place of a form's result ---


@pytest.mark.gen_test
async def test_who_signed_in_just_now_is_not_asked(site: Site) -> None:
    """Ten minutes long."""
    browser, other = await site.signed_in(), await site.signed_in()
    site.clock.advance(WHILE_S - 2)
    response = await browser.submit("/account/sessions", OTHERS)

    assert response.code == 303
    assert await user_of(other) is None


@pytest.mark.gen_test
async def test_who_signed_in_long_ago_is_asked_first(site: Site) -> None:
    """A page with a form takes the place of the result, and nothing is done yet."""
    other, browser = await site.signed_in(), await old_session(site)
    before = dict(browser.cookies)
    asked = await browser.submit("/account/sessions", OTHERS)

    assert asked.code == 403  # E16
    assert b"<h1>Confirm your password</h1>" in asked.body
    assert f'<form method="post" action="{OTHERS}">'.encode() in asked.body
    assert b'autocomplete="username" value="alice" readonly' in asked.body
    assert b'type="password" autocomplete="current-password"' in asked.body
    assert browser.cookies == before
    assert await user_of(other) == "alice"


@pytest.mark.gen_test
async def test_with_the_password_it_goes_on(site: Site) -> None:
    """What was asked for is done, under a new ID, and for a while there is no more asking."""
    other, browser = await site.signed_in(), await old_session(site)
    handle, old = session_handle(site, browser), browser.copy()
    asked = await browser.submit("/account/sessions", OTHERS)
    response = await browser.post_form(OTHERS, token(asked), password=PASSWORD)

    assert (response.code, response.headers["Location"]) == (303, "/account/sessions")
    assert await user_of(other) is None  # C8
    assert await user_of(browser) == "alice"
    assert (session_handle(site, browser), browser.cookies != old.cookies) == (handle, True)
    assert await user_of(old) is None  # C2
    site.clock.advance(WHILE_S - 2)
    assert (await browser.submit("/account/sessions", OTHERS)).code == 303
    site.clock.advance(WHILE_S)
    assert (await browser.submit("/account/sessions", OTHERS)).code == 403


@pytest.mark.gen_test
async def test_one_session_is_ended_after_the_password(site: Site) -> None:
    """The address of the form tells which; another user's stays as unknown as it was."""
    other, bob, browser = await site.signed_in(), await site.signed_in("bob"), await old_session(site)
    revoke = f"/account/sessions/{session_handle(site, other)}/revoke"
    asked = await browser.submit("/account/sessions", revoke)
    done = await browser.post_form(revoke, token(asked), password=PASSWORD)
    foreign = await browser.submit("/", f"/account/sessions/{session_handle(site, bob)}/revoke")

    assert (asked.code, done.code, foreign.code) == (403, 303, 404)  # C9
    assert [await user_of(each) for each in (browser, other, bob)] == ["alice", None, "bob"]


@pytest.mark.gen_test
async def test_sending_it_again_does_nothing(site: Site) -> None:
    """Reloading the result repeats a form whose token went with the ID it was made for."""
    browser = await old_session(site)
    asked = await browser.submit("/account/sessions", OTHERS)
    await browser.post_form(OTHERS, token(asked), password=PASSWORD)
    other = await site.signed_in()
    again = await browser.post_form(OTHERS, token(asked), password=PASSWORD)

    assert again.code == 403
    assert b"This form was out of date" in again.body
    assert await user_of(other) == "alice"  # D7


@pytest.mark.gen_test
async def test_a_wrong_password_does_nothing(site: Site) -> None:
    """The question comes back with what was wrong; the ID stays, and the right one still goes on."""
    other, browser = await site.signed_in(), await old_session(site)
    before = dict(browser.cookies)
    asked = await browser.submit("/account/sessions", OTHERS)
    wrong = await browser.post_form(OTHERS, token(asked), password="typed-password-7")

    assert wrong.code == 403
    assert b'role="alert" id="error">The password is wrong. Try again.' in wrong.body
    assert b"typed-password-7" not in wrong.body  # E20
    assert browser.cookies == before
    assert await user_of(other) == "alice"
    assert (await browser.post_form(OTHERS, token(wrong), password=PASSWORD)).code == 303


@pytest.mark.gen_test
async def test_guessing_is_throttled(open_site: OpenSite) -> None:
    """On both ways to answer, by one count."""
    site = open_site(rules=Rules(attempts=2))
    browser = await old_session(site)
    xsrf = token(await browser.get("/account/sessions"))
    await browser.post_form(OTHERS, xsrf, password="guess 1")
    await browser.post_form("/account/confirm", xsrf, password="guess 2")
    answers = [
        await browser.post_form(path, xsrf, password=PASSWORD) for path in (OTHERS, "/account/confirm")
    ]

    assert [each.code for each in answers] == [429, 429]  # E9
    assert all(b"Too many attempts. Try again in 10 seconds." in each.body for each in answers)
    assert [each.headers["Retry-After"] for each in answers] == ["10", "10"]


@pytest.mark.gen_test
async def test_an_account_disabled_meanwhile_is_signed_out(site: Site) -> None:
    """The right password proves nothing any more: nothing is done, and the way leads to sign-in."""
    other, browser = await site.signed_in(), await old_session(site)
    asked = await browser.submit("/account/sessions", OTHERS)
    gate = site.store.gate("rotate")
    answering = asyncio.ensure_future(browser.post_form(OTHERS, token(asked), password=PASSWORD))
    await gate.reached()
    site.context.accounts._accounts["alice"] = ACCOUNTS["dora"]  # type: ignore[attr-defined]
    gate.open()
    response = await answering

    assert response.code == 401
    assert b'<a class="button quiet" href="/login">Sign in</a>' in response.body
    assert "id" not in browser.cookies
    assert await user_of(other) is None  # C10


@pytest.mark.gen_test
async def test_a_form_still_needs_its_token(site: Site) -> None:
    """The password alone is no proof that the form is ours."""
    browser = await old_session(site)
    before = dict(browser.cookies)
    answers = [await browser.post_form(path, "", password=PASSWORD) for path in (OTHERS, "/account/confirm")]

    assert [each.code for each in answers] == [403, 403]  # F1
    assert all(b"This form was out of date, so it was not used." in each.body for each in answers)
    assert browser.cookies == before
    assert [each.kind for each in site.events].count(Kind.AUTHENTICATED) == 1


@pytest.mark.gen_test
async def test_the_password_is_taken_once_and_from_the_body(site: Site) -> None:
    """Two, one that is no text, or one in the URL is a form that we did not make."""
    browser = await old_session(site)
    xsrf = token(await browser.get("/account/sessions"))
    codes = []
    for path, body in (
        (OTHERS, "password=a&password=b"),
        (OTHERS, "password=%ff"),
        (f"{OTHERS}?password=a", ""),
    ):
        sent = f"_xsrf={xsrf}&{body}"
        response = await browser.fetch("POST", path, body=sent, headers={"Content-Type": FORM})
        codes.append((response.code, b"Confirm your password" in response.body))

    assert codes == [(400, False), (400, False), (403, True)]  # E7


# --- on a page of its own ---


@pytest.mark.gen_test
async def test_the_page_of_its_own_leads_on(site: Site) -> None:
    """It asks, takes the answer, changes the ID, and goes where it was told."""
    browser = await old_session(site)
    await browser.json("PATCH", "/session", {"cart": [1]})
    old = browser.copy()
    page = await browser.get("/account/confirm?next=%2Faccount%2Fsessions%3Fx%3D%2522")
    response = await browser.post_form(
        "/account/confirm", token(page), password=PASSWORD, **dict(hidden_fields(page))
    )

    assert hidden_fields(page) == [("next", "/account/sessions?x=%22")]
    assert (response.code, response.headers["Location"]) == (303, "/account/sessions?x=%22")
    assert (await browser.json("GET", "/session"))[1]["data"] == {"cart": [1]}
    assert await user_of(old) is None  # C2
    assert site.events[-1].kind is not Kind.DESTROYED
    told = [(each.user, each.reason) for each in site.events if each.kind is Kind.AUTHENTICATED]
    assert told == [("alice", "sign-in"), ("alice", "again")]


@pytest.mark.gen_test
@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/logout", "/account/confirm"])
async def test_it_never_leads_elsewhere(target: str, site: Site) -> None:
    """A target on another site, or one that makes no sense, becomes the home page."""
    browser = await site.signed_in()
    page = await browser.get(f"/account/confirm?next={target}")
    response = await browser.post_form("/account/confirm", token(page), password=PASSWORD, next=target)

    assert hidden_fields(page) == [("next", "/")]  # E13, E14
    assert response.headers["Location"] == "/"


@pytest.mark.gen_test
async def test_a_wrong_password_there_keeps_the_target(site: Site) -> None:
    """Nobody has to begin again."""
    browser = await site.signed_in()
    response = await browser.submit(
        "/account/confirm", "/account/confirm", password="wrong", next="/account/sessions"
    )

    assert response.code == 403
    assert hidden_fields(response) == [("next", "/account/sessions")]


@pytest.mark.gen_test
async def test_a_script_gives_the_password_there(site: Site) -> None:
    """What needs it says so by a code of its own, and goes through afterwards."""
    other, browser = await site.signed_in(), await old_session(site)
    refused, body = await browser.json("POST", OTHERS)
    wrong, _ = await browser.json("POST", "/account/confirm", {"password": "wrong"})
    given = await browser.json("POST", "/account/confirm", {"password": PASSWORD})
    done = await browser.json("POST", OTHERS)

    assert (refused, body["error"]["code"]) == (403, "reauthentication_required")
    assert (wrong, given, done) == (403, (204, None), (204, None))
    assert [await user_of(each) for each in (browser, other)] == ["alice", None]


@pytest.mark.gen_test
async def test_it_is_for_users_only(site: Site) -> None:
    """A visitor is asked who they are, not whether it is still them."""
    browser = site.browser()
    page = await browser.get("/account/confirm")
    status, _ = await browser.json("POST", "/account/confirm", {"password": PASSWORD})

    assert (page.code, page.headers["Location"]) == (303, "/login?next=%2F")
    assert status == 401


# --- what a handler may use it for ---


class Keys(ConfirmingPage):
    """What an application could guard: a page to see, and a form with fields."""

    page = "/account/sessions"
    given: dict[str, list[bytes]]

    @signed_in
    @reauthenticated()
    async def get(self) -> None:
        """Show."""
        self.write("keys")

    @signed_in
    @shows_errors_in_form
    @reauthenticated()
    async def post(self) -> None:
        """Take the fields."""
        self.write(
            {name: [each.decode() for each in given] for name, given in self.request.body_arguments.items()}
        )


@pytest.fixture
def guarded(open_site: OpenSite) -> Site:
    """A site with one more handler, at `/keys`."""
    site = open_site()
    application = site._http.request_callback
    application.add_handlers(".*", [("/keys", Keys, {"context": site.context})])  # type: ignore[attr-defined]
    return site


@pytest.mark.gen_test
async def test_a_page_to_see_leads_there_and_back(guarded: Site) -> None:
    """The query comes back as it was; a script is told instead."""
    browser = await old_session(guarded)
    away = await browser.get("/keys?of=a%26b")
    page = await browser.get(away.headers["Location"])
    status, body = await browser.json("GET", "/keys")
    back = await browser.post_form(
        "/account/confirm", token(page), password=PASSWORD, **dict(hidden_fields(page))
    )

    assert (away.code, away.headers["Location"]) == (303, "/account/confirm?next=%2Fkeys%3Fof%3Da%2526b")
    assert (status, body["error"]["code"]) == (403, "reauthentication_required")
    assert back.headers["Location"] == "/keys?of=a%26b"
    assert (await browser.get("/keys?of=a%26b")).body == b"keys"


@pytest.mark.gen_test
async def test_a_form_keeps_its_fields(guarded: Site) -> None:
    """In their order, twice where they came twice, as text; but nothing that is like a password."""
    browser = await old_session(guarded)
    xsrf = token(await browser.get("/"))
    fields = (
        "name=a&name=%22%3E%3Cb%3E&note=%C3%A9+x&new_password=typed-password-7&PassWord2=typed-password-7"
    )
    sent = f"_xsrf={xsrf}&{fields}"
    asked = await browser.fetch("POST", "/keys", body=sent, headers={"Content-Type": FORM})
    done = await browser.post_form("/keys", token(asked), password=PASSWORD, note="é x")

    assert hidden_fields(asked) == [("name", "a"), ("name", '"><b>'), ("note", "é x")]
    assert b"typed-password-7" not in asked.body  # E20
    assert b"<b>" not in asked.body  # F9
    assert done.code == 200


@pytest.mark.gen_test
async def test_fields_that_are_no_text_are_refused(guarded: Site) -> None:
    """What could not come back as it was sent is not asked about."""
    browser = await old_session(guarded)
    xsrf = token(await browser.get("/"))
    body = f"_xsrf={xsrf}&name=%ff"
    response = await browser.fetch("POST", "/keys", body=body, headers={"Content-Type": FORM})

    assert response.code == 400


@pytest.mark.gen_test
async def test_signing_in_afresh_is_proof_as_well(site: Site) -> None:
    """Who has just signed in over an old session is not asked again."""
    browser = await old_session(site)
    await sign_in(browser)
    response = await browser.submit("/account/sessions", OTHERS)

    assert response.code == 303


# --- what happens meanwhile ---


@pytest.mark.gen_test
async def test_a_double_click_does_it_once(site: Site) -> None:  # D7
    """Of two answers at once one goes on; the other is told that something else came first."""
    other, browser = await site.signed_in(), await old_session(site)
    xsrf = token(await browser.submit("/account/sessions", OTHERS))
    gates = [site.store.gate("rotate") for _ in range(2)]
    clicks = [
        asyncio.ensure_future(each.post_form(OTHERS, xsrf, password=PASSWORD))
        for each in (browser, browser.copy())
    ]
    for gate in gates:
        await gate.reached()
    for gate in gates:
        gate.open()
    answers = await asyncio.gather(*clicks)

    assert sorted(answer.code for answer in answers) == [303, 409]
    assert await user_of(other) is None
    assert len(await site.records()) == 1


@pytest.mark.parametrize("path", [OTHERS, "/account/confirm"])
@pytest.mark.gen_test
async def test_a_session_that_was_signed_out_meanwhile_stays_so(path: str, site: Site) -> None:  # C5, D1
    """A proof under way neither brings it back nor begins another, and nothing is done."""
    other, browser = await site.signed_in(), await old_session(site)
    xsrf = token(await browser.get("/account/confirm"))
    tab, gate = browser.copy(), site.store.gate("rotate")
    proof = asyncio.ensure_future(browser.post_form(path, xsrf, password=PASSWORD))
    await gate.reached()
    await tab.json("POST", "/logout", {})
    gate.open()
    response = await proof

    assert response.code == 409
    assert [await user_of(each) for each in (browser, tab, other)] == [None, None, "alice"]

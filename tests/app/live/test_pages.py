"""The script of the pages: which pages have it, what they tell it, and how it is served."""

from __future__ import annotations

import re

import pytest

from tests.support.browser import Browser, token
from tests.support.site import PASSWORD, Site, sign_in

SCRIPT = re.compile(
    r'<script src="(/static/live\.js\?v=[0-9a-f]+)" defer'
    r' data-user="([^"]*)" data-sign-in="([^"]*)"></script>'
)


async def script_of(browser: Browser, path: str) -> tuple[str, ...] | None:
    """Return the URL of the script on a page, the user and the address of sign-in; None without a script."""
    return found((await browser.get(path)).body)


def found(page: bytes) -> tuple[str, ...] | None:
    """Return the same of the HTML of a page."""
    match = SCRIPT.search(page.decode())
    assert page.count(b"<script") == (match is not None)
    return match and match.groups()


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("path", "next_page"),
    [
        ("/", "%2F"),
        ("/account/sessions?a=b", "%2Faccount%2Fsessions%3Fa%3Db"),
        ("/account/password", "%2Faccount%2Fpassword"),
        ("/account/confirm?next=/account/password", "%2F"),
        ("/nowhere", "%2Fnowhere"),
        ("//evil.example", "%2F"),
    ],
)
async def test_page_of_a_user_has_the_script(path: str, next_page: str, site: Site) -> None:
    """With the user that the page shows, and the sign-in that leads back to the page."""
    script = await script_of(await site.signed_in(), path)

    assert script is not None
    assert script[1:] == ("alice", f"/login?next={next_page}&amp;ended=1")


@pytest.mark.gen_test
async def test_answer_to_a_form_leads_back_to_the_page_of_the_form(site: Site) -> None:
    """The address that was posted to takes no GET."""
    browser = await site.signed_in()
    xsrf = token(await browser.get("/account/password"))
    wrong = await browser.post_form("/account/password", xsrf, current="x", new="a storm in the cellar")
    refused = await browser.post_form("/account/sessions/revoke-others", "x")

    scripts = [found(wrong.body), found(refused.body)]
    assert [script and script[2] for script in scripts] == [
        "/login?next=%2Faccount%2Fpassword&amp;ended=1",
        "/login?next=%2Faccount%2Fsessions&amp;ended=1",
    ]


@pytest.mark.gen_test
async def test_sign_in_page_says_why_it_is_there(site: Site) -> None:
    """To a person whose session ended, and to nobody who is signed in or came by themselves."""
    text = b"You were signed out."
    visitor, user = site.browser(), await site.signed_in()

    assert text in (await visitor.get("/login?next=%2F&ended=1")).body
    assert text not in (await visitor.get("/login?next=%2F")).body
    assert text not in (await user.get("/login?next=%2F&ended=1")).body


@pytest.mark.gen_test
async def test_sign_in_page_has_no_script(site: Site) -> None:
    """Neither for who is signed in: it is where the script leads to, so there can be no loop."""
    browser = await site.signed_in()
    refused = await sign_in(browser, password="wrong")

    assert await script_of(browser, "/login?next=/account/password") is None
    assert found(refused.body) is None


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/", "/login", "/signed-out", "/nowhere"])
async def test_visitor_has_no_script(path: str, site: Site) -> None:
    """There is no session to follow."""
    assert await script_of(site.browser(), path) is None


@pytest.mark.gen_test
async def test_script_is_kept_for_a_year(site: Site) -> None:
    """Its URL has the version of its content."""
    script = await script_of(await site.signed_in(), "/")
    assert script is not None
    response = await site.browser().get(script[0])

    assert response.code == 200
    assert re.fullmatch("(text|application)/javascript", response.headers["Content-Type"])
    assert response.headers["Cache-Control"] == "max-age=31536000"


@pytest.mark.gen_test
async def test_expired_session_is_led_to_sign_in_once(site: Site) -> None:
    """HEAD tells the script; the sign-in page then has none, and leads back."""
    browser = await site.signed_in()
    script = await script_of(browser, "/account/sessions")
    site.clock.advance(3600)
    head = await browser.fetch("HEAD", "/events")
    assert script is not None
    page = await browser.get(script[2])
    answer = await browser.post_form(
        "/login", token(page), username="alice", password=PASSWORD, next="/account/sessions"
    )

    assert (head.code, page.code, found(page.body)) == (401, 200, None)
    assert b'name="next" value="/account/sessions"' in page.body
    assert answer.headers["Location"] == "/account/sessions"

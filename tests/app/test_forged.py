"""Forged requests: forms of other sites, IDs nobody was given, and signing somebody else out."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from stormcellar.sessions.signing import KeyRing
from tests.support.browser import token
from tests.support.site import JSON, KEY, PASSWORD, Site, seen, session_handle, session_secret, sign_in

FORM = "application/x-www-form-urlencoded"

# --- forms ---


@pytest.mark.gen_test
async def test_sign_in_needs_the_token_of_this_browser(site: Site) -> None:
    """Without a token, with somebody else's, or with one in the URL nobody is signed in."""
    foreign = token(await site.browser().get("/login"))
    for query, xsrf in (("", ""), ("", foreign), ("", "x" * 86), (f"?_xsrf={foreign}", "")):
        browser = site.browser()
        await browser.get("/login")
        fields = {"username": "alice", "password": PASSWORD}
        response = await browser.post_form("/login" + query, xsrf, **fields)

        assert response.code == 403  # C14
        assert "id" not in browser.cookies


@pytest.mark.gen_test
async def test_another_site_cannot_sign_in(site: Site) -> None:
    """A request that a page of another site sends is refused whatever its body, token and all."""
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        browser = site.browser()
        xsrf = token(await browser.get("/login"))
        fields = urlencode({"_xsrf": xsrf, "username": "alice", "password": PASSWORD})
        body = json.dumps({"username": "alice", "password": PASSWORD})
        for media, sent in ((FORM, fields), (JSON, body)):
            response = await browser.fetch(
                "POST", "/login", body=sent, headers={"Content-Type": media, **headers}
            )

            assert response.code == 403  # C14
            assert "id" not in browser.cookies


@pytest.mark.gen_test
async def test_form_tokens_change_at_sign_in_and_sign_out(site: Site) -> None:
    """A token from before either does not count after it."""
    browser = site.browser()
    anonymous = token(await browser.get("/login"))
    await sign_in(browser)
    signed_in = token(await browser.get("/"))
    refused = await browser.post_form("/logout", anonymous)
    await browser.post_form("/logout", signed_in)
    late = await browser.post_form("/login", signed_in, username="alice", password=PASSWORD)
    later = await browser.post_form("/login", anonymous, username="alice", password=PASSWORD)

    assert [refused.code, late.code, later.code] == [403, 403, 403]  # C15


@pytest.mark.gen_test
async def test_two_tabs_can_both_sign_in(site: Site) -> None:
    """A browser that restores several tabs has a form in each, and every one of them works."""
    browser = site.browser()
    tokens = [token(await browser.get("/login")) for _ in range(3)]

    for xsrf in tokens:
        tab = browser.copy()
        response = await tab.post_form("/login", xsrf, username="alice", password=PASSWORD)
        assert response.code == 303


# --- out again ---


@pytest.mark.gen_test
async def test_signing_out_is_idempotent_and_makes_no_session(site: Site) -> None:
    """With a live session, an old cookie or none: the same answer, and never a record or a new cookie."""
    browser = await site.signed_in()
    old = browser.copy()
    page = await browser.get("/")
    answers = [await each.post_form("/logout", token(page)) for each in (browser, old, site.browser())]
    site.clock.advance(31)
    answers.append(await old.post_form("/logout", token(page)))

    assert [(each.code, each.headers["Location"]) for each in answers] == [(303, "/signed-out")] * 4  # C6
    assert browser.cookies.keys() == old.cookies.keys() == {"id-device"}
    assert site.store.calls["create"] == 1
    assert await site.records() == []


@pytest.mark.gen_test
async def test_signing_out_needs_a_post_with_a_token(site: Site) -> None:
    """Neither a link nor another site's form can sign somebody out."""
    browser = await site.signed_in()
    answers = [
        await browser.get("/logout"),
        await browser.post_form("/logout", ""),
        await browser.post_form("/logout", token(await site.browser().get("/login"))),
        await browser.fetch("POST", "/logout", body=b""),
    ]

    assert [each.code for each in answers] == [405, 403, 403, 403]  # C6, F4
    assert (await browser.json("GET", "/session"))[1]["user"] == "alice"


@pytest.mark.gen_test
async def test_a_superseded_cookie_signs_nobody_out(site: Site) -> None:
    """Whoever holds the ID from before the rotation can neither end the session nor take its cookie away."""
    browser = await site.signed_in()
    old = browser.copy()
    xsrf = token(await old.get("/"))
    await sign_in(browser)
    response = await old.post_form("/logout", xsrf)

    assert response.code == 303
    assert "Set-Cookie" not in response.headers
    assert (await browser.json("GET", "/session"))[1]["user"] == "alice"


REQUESTS = [("GET", "/"), ("GET", "/session"), ("PATCH", "/session"), ("POST", "/logout"), ("GET", "/x")]


@pytest.mark.gen_test
@pytest.mark.parametrize(("method", "path"), REQUESTS)
async def test_a_forged_secret_for_a_known_handle_is_nobody(method: str, path: str, site: Site) -> None:
    """Known handle or not, an ID that this site never signed gets one answer, ends nothing, asks no store."""
    browser = await site.signed_in()
    handle, secret = session_handle(site, browser), session_secret(site, browser)
    site.store.calls.clear()
    answers = [
        await forge(site, f"{handle}.{'A' * 43}", method, path, key="not the key of this site, " * 2),
        await forge(site, f"{'A' * 22}.{secret}", method, path, key="not the key of this site, " * 2),
    ]

    assert answers[0] == answers[1]
    # To the store each is a visitor, who is counted and given a record where something is written.
    assert dict(site.store.calls) == ({"take": 2, "create": 2} if method == "PATCH" else {})
    assert (await browser.json("GET", "/session"))[1]["user"] == "alice"


@pytest.mark.gen_test
@pytest.mark.parametrize(("method", "path"), REQUESTS)
async def test_even_the_signing_key_does_not_tell_a_known_handle(method: str, path: str, site: Site) -> None:
    """A well-signed ID with a wrong secret gets the answer of an unknown one, and ends nothing.

    But for one line: an ID whose session is over is deleted in the browser, one that was rotated is not,
    since the same browser may hold the new one already. (And for 30 s after a rotation, while the request may
    be late.)
    """
    browser = await site.signed_in()
    site.clock.advance(31)
    handle, secret = session_handle(site, browser), session_secret(site, browser)
    wrong = await forge(site, f"{handle}.{'A' * 43}", method, path)
    unknown = await forge(site, f"{'A' * 22}.{secret}", method, path)

    deletion = [header for header in unknown[1] if header not in wrong[1]]
    assert (wrong[0], wrong[2]) == (unknown[0], unknown[2])
    assert [header for header in unknown[1] if header not in deletion] == wrong[1]
    assert all(name == "Set-Cookie" and value.startswith("id=;") for name, value in deletion)
    assert (await browser.json("GET", "/session"))[1]["user"] == "alice"


async def forge(
    site: Site, session_id: str, method: str, path: str, *, key: str = KEY
) -> tuple[int, list[tuple[str, str]], str]:
    """Send an ID that was signed with *key*, and return the answer."""
    forger = site.browser()
    forger.cookies["id"] = KeyRing([key]).sign("id", session_id, clock=site.clock)
    sent = b'{"a": 1}' if method != "GET" else None
    return seen(await forger.fetch(method, path, body=sent, headers={"Content-Type": JSON}))

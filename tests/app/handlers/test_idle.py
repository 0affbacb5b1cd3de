"""The time left: what a page says of it, and the style sheet that warns of the end."""

from __future__ import annotations

import re

import pytest

from stormcellar import Lifetime
from tests.support.browser import Browser
from tests.support.site import OpenSite, Site, sign_in

SHORT = Lifetime(idle_s=1800, absolute_s=3600, touch_after_s=60)


async def left_on_page(browser: Browser) -> int:
    """Return the seconds that the home page counts down from."""
    found = re.search(rb"/idle\.css\?left=(\d+)", (await browser.get("/")).body)
    assert found is not None
    return int(found[1])


@pytest.mark.gen_test
@pytest.mark.parametrize("later_s", [0, 30, 59, 60, 1799])
async def test_a_page_counts_down_from_what_the_session_has_left(later_s: int, open_site: OpenSite) -> None:
    """Whether or not opening it was recorded as activity, which happens once a minute."""
    site = open_site(lifetime=SHORT)
    browser = await site.signed_in()
    site.clock.advance(later_s)
    told = await left_on_page(browser)

    await site.sessions.drain()
    assert told == (await browser.json("GET", "/session"))[1]["idle_expires_in"]  # B9


@pytest.mark.gen_test
async def test_near_the_absolute_limit_a_page_names_that_alone(open_site: OpenSite) -> None:
    """Activity puts nothing off any more, so the page neither says so nor offers to stay."""
    site = open_site(lifetime=SHORT)
    browser = await site.signed_in()
    site.clock.advance(1700)
    early = (await browser.get("/")).body.decode()
    site.clock.advance(200)
    late = (await browser.get("/")).body.decode()

    until = '<time datetime="2030-03-17T18:46:40Z">at 18:46 UTC</time>.'
    assert f"You will be signed out after 30 minutes without activity, and at the latest {until}" in early
    assert "Stay signed in" in early
    assert f"You will be signed out {until}" in late
    assert "Sign in again" in late and "Stay signed in" not in late


@pytest.mark.gen_test
async def test_a_visitor_is_told_of_no_end(site: Site) -> None:
    """Who is not signed in has no time that could run out."""
    for path in ("/", "/login", "/signed-out", "/nowhere"):
        assert b"idle" not in (await site.browser().get(path)).body


@pytest.mark.gen_test
async def test_the_warning_comes_two_minutes_before_the_end(site: Site) -> None:
    """One banner then, another in its place at the end, and neither any later than it can be."""
    browser = site.browser()
    response = await browser.get("/idle.css?left=1800")
    late = (await browser.get("/idle.css?left=90")).body.decode()

    css = response.body.decode()
    assert response.headers["Content-Type"] == "text/css; charset=UTF-8"
    assert "#idle-soon { animation: show 1ms 1680s forwards, hide 1ms 1800s forwards }" in css
    assert "#idle-over { animation: show 1ms 1800s forwards }" in css
    assert "show 1ms 0s forwards, hide 1ms 90s forwards" in late


@pytest.mark.gen_test
async def test_asking_for_the_warning_is_no_activity(site: Site) -> None:
    """The style sheet asks no store, with a live cookie either, and sets none."""
    browser = await site.signed_in()
    site.clock.advance(600)
    before = site.store.calls.copy()
    response = await browser.get("/idle.css?left=60")

    assert site.store.calls == before  # B8
    assert "Set-Cookie" not in response.headers


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "query",
    ["", "?left=", "?left=-1", "?left=1.5", "?left=1&left=2", "?left=1%20", "?left=%D9%A1", "?left=1}"],
)
async def test_a_time_that_is_no_number_makes_no_style(query: str, site: Site) -> None:
    """Nothing but digits gets into the style sheet."""
    response = await site.browser().get(f"/idle.css{query}")

    assert response.code == 400
    assert "text/css" not in response.headers["Content-Type"]


@pytest.mark.gen_test
async def test_the_way_to_stay_is_the_page_itself(site: Site) -> None:
    """The banner leads back to where the person is, or to the form's page after a form, and nowhere else."""
    browser = await site.signed_in()
    here = (await browser.get("/account/sessions?sort=a&x=%22")).body.decode()
    there = (await browser.get("//evil.example/..%2f")).body.decode()
    posted = (await sign_in(browser, password="wrong")).body.decode()

    assert here.count('<a href="/account/sessions?sort=a&amp;x=%22">Stay signed in</a>') == 1
    assert "evil" not in there
    assert posted.count('<a href="/login">Stay signed in</a>') == 1

"""Keep me signed in: the box, the cookie that stays, and the limits that hold on the server."""

from __future__ import annotations

from typing import Any

import pytest

from stormcellar import Lifetime
from tests.support.browser import token
from tests.support.site import JSON, PASSWORD, OpenSite, Site, session_handle, sign_in

DAY_S = 86_400
KEPT = Lifetime(remember_s=30 * DAY_S, remember_idle_s=7 * DAY_S)
BOX = b'<input name="remember" type="checkbox"'


@pytest.fixture
def keeping_site(open_site: OpenSite) -> Site:
    """A site that offers to keep people signed in for 30 days."""
    return open_site(lifetime=KEPT)


def set_cookie(response: Any) -> str:
    """Return the line that sets the session's cookie."""
    (line,) = [each for each in response.headers.get_list("Set-Cookie") if each.startswith("id=2|")]
    return str(line)


@pytest.mark.gen_test
async def test_the_box_says_for_how_long(site: Site, keeping_site: Site) -> None:
    """It stands in the form where it does something, and only there."""
    without = (await site.browser().get("/login")).body
    with_box = (await keeping_site.browser().get("/login")).body

    assert BOX not in without
    assert BOX in with_box
    assert b"For 30 days, even after you close the browser." in with_box


@pytest.mark.gen_test
async def test_the_cookie_stays_for_who_asks(keeping_site: Site) -> None:
    """Max-Age is the time that the server grants; without the box the cookie ends with the browser."""
    plain = await sign_in(keeping_site.browser())
    kept = await sign_in(keeping_site.browser(), remember="yes")

    assert "max-age" not in set_cookie(plain).lower()
    assert f"Max-Age={30 * DAY_S};" in set_cookie(kept) + ";"  # A12


@pytest.mark.gen_test
async def test_the_server_keeps_to_the_same_limits(keeping_site: Site) -> None:
    """Seven days without activity, thirty in all; without the box the usual half hour."""
    plain, kept, idle = [keeping_site.browser() for _ in range(3)]
    await sign_in(plain)
    for each in (kept, idle):
        await sign_in(each, remember="yes")

    async def users() -> list[str | None]:
        answers = [await each.copy().json("GET", "/session") for each in (plain, kept, idle)]
        return [body["user"] for _, body in answers]

    keeping_site.clock.advance(1801)
    assert await users() == [None, "alice", "alice"]
    for _ in range(4):
        keeping_site.clock.advance(6 * DAY_S)
        await kept.get("/")
        await keeping_site.sessions.drain()
    assert await users() == [None, "alice", None]
    keeping_site.clock.advance(6 * DAY_S)
    assert await users() == [None, None, None]  # B2


@pytest.mark.gen_test
async def test_a_page_tells_the_longer_time(keeping_site: Site) -> None:
    """With the day, since the hour alone would be taken for today's."""
    browser = keeping_site.browser()
    await sign_in(browser, remember="yes")
    page = (await browser.get("/")).body.decode()

    assert "after 7 days without activity, and at the latest <time" in page
    assert "on 16 April at 17:46 UTC</time>" in page


@pytest.mark.gen_test
async def test_where_it_is_not_offered_asking_means_nothing(site: Site) -> None:
    """Whoever sends it all the same is signed in as usual."""
    form = await sign_in(site.browser(), remember="yes")
    body = {"username": "alice", "password": PASSWORD, "remember": True}
    status, _ = await site.browser().json("POST", "/login", body)

    assert (form.code, status) == (303, 200)
    assert "max-age" not in set_cookie(form).lower()


@pytest.mark.gen_test
@pytest.mark.parametrize(("remember", "is_kept"), [(True, True), (False, False), (None, False)])
async def test_a_script_asks_with_true(remember: bool | None, is_kept: bool, keeping_site: Site) -> None:
    """JSON has a word for it; null is as if it were left out."""
    browser = keeping_site.browser()
    body = {"username": "alice", "password": PASSWORD, "remember": remember}
    status, _ = await browser.json("POST", "/login", body)

    assert status == 200
    _, session = await browser.json("GET", "/session")
    assert session["absolute_expires_in"] == (30 * DAY_S if is_kept else 43_200)


@pytest.mark.gen_test
@pytest.mark.parametrize("remember", ["yes", "true", 1, 0, [], {}])
async def test_what_is_neither_true_nor_false_is_refused(remember: Any, keeping_site: Site) -> None:
    """A guess would keep somebody signed in who did not ask."""
    browser = keeping_site.browser()
    body = {"username": "alice", "password": PASSWORD, "remember": remember}
    status, answer = await browser.json("POST", "/login", body)

    assert (status, answer["error"]["code"]) == (400, "bad_request")
    assert browser.cookies == {}


@pytest.mark.gen_test
@pytest.mark.parametrize("sent", ["remember=on", "remember=", "remember=yes&remember=yes", "remember=%ff"])
async def test_a_box_has_one_value(sent: str, keeping_site: Site) -> None:
    """Another value, or two, is a form that we did not make."""
    browser = keeping_site.browser()
    xsrf = token(await browser.get("/login"))
    body = f"_xsrf={xsrf}&username=alice&password={PASSWORD.replace(' ', '+')}&{sent}"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = await browser.fetch("POST", "/login", body=body, headers=headers)

    assert response.code == 400  # E7
    assert "id" not in browser.cookies


@pytest.mark.gen_test
async def test_the_box_is_not_ticked_in_the_url(keeping_site: Site) -> None:
    """Nobody decides it for another with a link."""
    browser = keeping_site.browser()
    response = await browser.submit("/login", "/login?remember=yes", username="alice", password=PASSWORD)
    page = await browser.get("/login?remember=yes")

    assert response.code == 400
    assert b"checked" not in page.body


@pytest.mark.gen_test
async def test_a_wrong_password_leaves_the_box_as_it_was(keeping_site: Site) -> None:
    """What was ticked is still ticked in the form that comes back."""
    ticked = await sign_in(keeping_site.browser(), password="wrong", remember="yes")
    empty = await sign_in(keeping_site.browser(), password="wrong")

    assert ticked.body.count(b"checked") == 1
    assert b"checked" not in empty.body


@pytest.mark.gen_test
async def test_who_is_kept_signed_in_stays_so_when_asked_again(keeping_site: Site) -> None:
    """Giving the password once more neither shortens the session nor has its cookie end with the browser."""
    browser = keeping_site.browser()
    await sign_in(browser, remember="yes")
    handle = session_handle(keeping_site, browser)
    response = await browser.submit("/account/confirm", "/account/confirm", password=PASSWORD)

    assert f"Max-Age={30 * DAY_S};" in set_cookie(response) + ";"
    assert session_handle(keeping_site, browser) == handle
    assert JSON not in response.headers["Content-Type"]

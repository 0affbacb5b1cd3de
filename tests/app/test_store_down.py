"""What works while the session store does not, what is refused, and that nothing needs a restart."""

from __future__ import annotations

import asyncio
import json
from secrets import token_urlsafe

import pytest

from stormcellar.stores import StoreFull, StoreUnavailable, open_store
from tests.conftest import StartServer
from tests.support.browser import Browser, token
from tests.support.site import JSON, PASSWORD, OpenSite, Site, sign_in

CALLS = ("create", "load", "apply", "rotate", "destroy", "of_user", "ping")


def break_store(site: Site, error: Exception | None = None) -> None:
    """Let every call of the store fail from now on."""
    site.store.fail = dict.fromkeys(CALLS, error or StoreUnavailable("all of it"))


@pytest.mark.gen_test
async def test_whatever_needs_no_session_goes_on(site: Site) -> None:
    """A visitor sees home and the form; the process is alive, says that it is not ready; style is served."""
    break_store(site)
    visitor = site.browser()
    paths = ("/", "/login", "/session", "/healthz", "/readyz", "/static/style.css", "/nowhere")

    statuses = [(await visitor.get(path)).code for path in paths]
    assert statuses == [200, 200, 200, 200, 503, 200, 404]


@pytest.mark.gen_test
async def test_client_with_a_cookie_is_asked_to_come_back_and_keeps_it(site: Site) -> None:
    """Every page and call is a 503 with Retry-After, and the cookie is neither cleared nor replaced."""
    browser = await site.signed_in()
    cookies = dict(browser.cookies)
    xsrf = token(await browser.get("/"))
    break_store(site)
    answers = [
        *[await browser.get(path) for path in ("/", "/login", "/account/sessions", "/session")],
        await browser.post_form("/logout", xsrf),
        await browser.post_form("/account/sessions/revoke-others", xsrf),
        await browser.post_form("/login", xsrf, username="alice", password=PASSWORD),
        await browser.fetch("PATCH", "/session", body=b'{"a": 1}', headers={"Content-Type": JSON}),
    ]

    for response in answers:
        assert (response.code, response.headers["Retry-After"]) == (503, "2")  # G13
        assert "Set-Cookie" not in response.headers
        assert response.headers["Cache-Control"] == "no-store"
    assert browser.cookies == cookies
    assert b"The session store does not respond." in answers[0].body
    assert json.loads(answers[3].body)["error"]["code"] == "store_unavailable"


@pytest.mark.gen_test
@pytest.mark.parametrize("accept", ["text/html", JSON])
async def test_a_sign_out_that_fails_says_so_and_keeps_the_cookie(accept: str, site: Site) -> None:
    """Nobody is told that they are signed out while the session lives on; the next try works."""
    browser = await site.signed_in()
    xsrf = token(await browser.get("/"))
    site.store.fail["destroy"] = StoreUnavailable("destroy")
    headers = {"Accept": accept, "Content-Type": "application/x-www-form-urlencoded"}
    failed = await browser.fetch("POST", "/logout", body=f"_xsrf={xsrf}", headers=headers)
    site.store.fail["load"] = site.store.fail.pop("destroy")
    unread = await browser.fetch("POST", "/logout", body=f"_xsrf={xsrf}", headers=headers)
    site.store.fail.clear()
    still = (await browser.json("GET", "/session"))[1]["user"]
    done = await browser.fetch("POST", "/logout", body=f"_xsrf={xsrf}", headers=headers)

    assert (failed.code, unread.code, still) == (503, 503, "alice")  # C6
    assert b"so you may still be signed in" in failed.body and b"so you may still be signed in" in unread.body
    assert done.code in (204, 303)
    assert await site.records() == []
    assert "id" not in browser.cookies


@pytest.mark.gen_test
@pytest.mark.parametrize("error", [StoreUnavailable("create"), StoreFull("create")])
async def test_a_sign_in_that_cannot_be_stored_signs_nobody_in(error: Exception, site: Site) -> None:
    """The right password gives a 503 without a cookie, in a form and in JSON."""
    site.store.fail["create"] = error
    browser = site.browser()
    page = await sign_in(browser)
    status, body = await browser.json("POST", "/login", {"username": "alice", "password": PASSWORD})

    assert [page.code, status] == [503, 503]  # D12
    assert body["error"]["code"] == "store_unavailable"
    assert "id" not in browser.cookies


@pytest.mark.gen_test
async def test_a_write_that_fails_is_not_reported_as_done(site: Site) -> None:
    """A PATCH and a count whose outcome is unknown are 503; the session and its cookie stay."""
    browser = await site.signed_in()
    site.store.fail["apply"] = StoreUnavailable("apply")
    answers = [
        await browser.json("PATCH", "/session", {"a": 1}),
        await browser.json("POST", "/session/increment", {"key": "n"}),
    ]
    site.store.fail.clear()

    assert [status for status, _ in answers] == [503, 503]
    assert (await browser.json("GET", "/session"))[1]["user"] == "alice"


@pytest.mark.gen_test
async def test_a_touch_that_fails_is_not_felt(site: Site) -> None:
    """A page that only reads is served though its activity could not be recorded."""
    browser = await site.signed_in()
    site.clock.advance(120)
    site.store.fail["apply"] = StoreUnavailable("apply")
    page = await browser.get("/")
    await site.sessions.drain()

    assert page.code == 200
    assert site.store.calls["apply"] == 1


@pytest.mark.gen_test
async def test_a_store_that_breaks_in_its_own_way_is_not_ready(site: Site) -> None:
    """Whatever error ping() raises, the answer is no 200."""
    site.store.fail["ping"] = RuntimeError("x")

    assert (await site.browser().get("/readyz")).code == 500
    assert (await site.browser().get("/healthz")).code == 200


@pytest.mark.gen_test(timeout=60)
async def test_a_store_that_comes_back_is_used_without_a_restart(
    open_site: OpenSite, start_server: StartServer
) -> None:
    """Redis is killed and started again: 503 meanwhile, and then the same process signs people in."""
    redis = start_server("redis8")
    store = open_store(redis.url, prefix=f"test-{token_urlsafe(6)}", timeout_s=5)
    site = open_site(store)
    browser, visitor = await site.signed_in(), site.browser()
    cookies = dict(browser.cookies)
    redis.kill()
    down = [
        (await browser.get("/")).code,
        (await visitor.get("/readyz")).code,
        (await visitor.get("/login")).code,
    ]
    kept = dict(browser.cookies)
    await asyncio.to_thread(redis.start)
    await eventually_ready(visitor)
    page = await browser.get("/")

    assert down == [503, 503, 200]  # G13
    assert kept == cookies
    assert (page.code, b"You are not signed in" in page.body) == (200, True)
    assert (await sign_in(browser)).code == 303
    assert (await browser.json("GET", "/session"))[1]["user"] == "alice"


async def eventually_ready(browser: Browser) -> None:
    """Return as soon as the store answers again."""
    for _ in range(600):
        if (await browser.get("/readyz")).code == 200:
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("the store did not come back")


@pytest.mark.gen_test
async def test_health_tells_one_word(site: Site) -> None:  # I8
    """Neither the store's kind nor its fault, and nothing of sessions, whoever asks."""
    site.store.fail["ping"] = StoreUnavailable("redis://user:password@host refused")
    browser = await site.signed_in()
    answers = [await browser.get(path) for path in ("/healthz", "/readyz")]

    assert [answer.body for answer in answers] == [b'{"status": "ok"}', b'{"status": "store unavailable"}']

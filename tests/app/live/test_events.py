"""`GET /events`: what a page is told of its session while it is shown, and who gets a stream."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from stormcellar.app.handlers.events import SessionEvents
from stormcellar.runtime import connections, http_server
from stormcellar.sessions.live.watch import Rechecks
from stormcellar.stores import StoreUnavailable
from tests.app.live.stream import LIST, SOON_S, opened
from tests.support.site import PASSWORD, OpenSite, Site

OFTEN = Rechecks(every_s=0.2)


@pytest.mark.gen_test
async def test_first_event_tells_who_is_signed_in_and_for_how_long(site: Site) -> None:
    """With the form token of this session, which works; the request is no activity."""
    browser = await site.signed_in()
    site.clock.advance(600)
    before = await site.records()
    async with opened(site, browser) as stream:
        kind, data = await stream.next()
    answer = await browser.post_form("/logout", data["form_token"])

    assert (kind, data["user"], data["left_s"]) == ("session", "alice", 1200)
    assert answer.headers["Location"] == "/signed-out"
    assert await site.records() == [] != before
    assert "Content-Type: text/event-stream\r\n" in stream.head
    assert "Cache-Control: no-store\r\n" in stream.head
    assert "X-Accel-Buffering: no\r\n" in stream.head
    assert "Set-Cookie" not in stream.head


@pytest.mark.gen_test
async def test_stream_is_no_activity(site: Site) -> None:  # B8
    """A page that is only shown does not extend the session."""
    browser = await site.signed_in()
    site.clock.advance(600)
    before = await site.records()
    async with opened(site, browser) as stream:
        await stream.next()
        await site.sessions.drain()

    assert await site.records() == before


@pytest.mark.gen_test
async def test_activity_in_another_tab_is_told(open_site: OpenSite) -> None:
    """The stream tells the new time once the session is found extended, and nothing as long as it is not."""
    site = open_site(rechecks=OFTEN)
    browser = await site.signed_in()
    async with opened(site, browser) as stream:
        first = await stream.next()
        site.clock.advance(600)
        is_silent = await stream.is_silent()
        await browser.get("/")
        kind, data = await stream.next()

    assert first[1]["left_s"] == 1800
    assert is_silent
    assert (kind, data["left_s"]) == ("session", 1800)


@pytest.mark.gen_test
async def test_sign_out_elsewhere_ends_the_stream(site: Site) -> None:
    """At once, with the reason, and HEAD then tells why no other stream opens."""
    browser, other = await site.signed_in(), await site.signed_in()
    async with opened(site, browser) as stream:
        await stream.next()
        before = await browser.fetch("HEAD", "/events")
        await other.submit("/account/sessions", "/account/sessions/revoke-others")
        events = [await stream.next(), await stream.next()]
    after = await browser.fetch("HEAD", "/events")
    refused = await browser.get("/events", Accept="text/html")

    assert events == [("session_over", {"reason": "signed_out"}), ("", None)]
    assert (before.code, before.headers["Content-Type"], before.body) == (200, "text/event-stream", b"")
    assert (after.code, refused.code) == (401, 401)
    assert json.loads(refused.body)["error"]["code"] == "unauthenticated"
    assert len(site.sessions.watch) == 0


@pytest.mark.gen_test
async def test_password_of_another_tab_has_the_stream_opened_anew(site: Site) -> None:
    """The old stream says that the browser has another session ID; the next has a form token that works."""
    browser = await site.signed_in()
    async with opened(site, browser) as stream:
        old = (await stream.next())[1]["form_token"]
        site.clock.advance(1)
        await browser.submit("/account/confirm", "/account/confirm", password=PASSWORD)
        over = await stream.next()
    async with opened(site, browser) as stream:
        data = (await stream.next())[1]
    refused = await browser.post_form("/logout", old)
    answer = await browser.post_form("/logout", data["form_token"])

    assert over == ("session_over", {"reason": "replaced"})
    assert data["user"] == "alice"
    assert (refused.code, answer.code) == (403, 303)


@pytest.mark.gen_test
async def test_server_that_stops_ends_the_stream(site: Site) -> None:
    """Nothing is in progress then, and no last event says that the session is over."""
    browser = await site.signed_in()
    async with opened(site, browser) as stream:
        await stream.next()
        await site.sessions.watch.aclose()

        assert await stream.next() == ("", None)
        await asyncio.wait_for(site.context.in_flight.drain(), SOON_S)


@pytest.mark.gen_test
async def test_stream_outlasts_the_time_of_a_response(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that reads is not taken for one that does not, however long the answer is."""
    monkeypatch.setattr(connections, "LONGEST_ANSWER_S", 0.05)
    monkeypatch.setattr(http_server, "SWEEP_EVERY_S", 0.01)
    site = open_site()
    browser = await site.signed_in()
    async with opened(site, browser) as stream:
        await stream.next()
        is_silent = await stream.is_silent()
        await browser.submit("/", "/logout")
        kind, _ = await stream.next()

    assert (is_silent, kind) == (True, "session_over")


# --- who gets none ---


@pytest.mark.gen_test
@pytest.mark.parametrize(("method", "path"), [("GET", "/events"), ("HEAD", "/events"), ("GET", LIST)])
async def test_visitor_gets_no_stream(method: str, path: str, site: Site) -> None:
    """401, in JSON, and neither a cookie nor a record."""
    browser = site.browser()
    response = await browser.fetch(method, path)

    assert (response.code, browser.cookies) == (401, {})
    assert await site.records() == []


@pytest.mark.gen_test
async def test_only_reading_is_allowed(site: Site) -> None:  # F14
    """Other methods are 405, with those that are allowed."""
    browser = await site.signed_in()
    options = await browser.fetch("OPTIONS", "/events")
    post = await browser.fetch("POST", "/events", body=b"")

    assert (options.code, options.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
    assert (post.code, post.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.gen_test
@pytest.mark.parametrize("query", ["list=", "list=accounts", "list=sessions&list=sessions", "list=Sessions"])
async def test_unknown_list_is_refused(query: str, site: Site) -> None:
    """With what to do, before any stream."""
    browser = await site.signed_in()
    response = await browser.get(f"/events?{query}")

    assert (response.code, b"with the value sessions" in response.body) == (400, True)


@pytest.mark.gen_test
async def test_too_many_streams_are_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """429, by GET and by HEAD, with a code of its own; the other pages work."""
    monkeypatch.setattr(SessionEvents, "max_streams_per_session", 1)
    browser = await site.signed_in()
    async with opened(site, browser) as stream:
        await stream.next()
        status, body = await browser.json("GET", "/events")
        head = await browser.fetch("HEAD", "/events")
        page = await browser.get("/account/sessions")

    assert (status, head.code, page.code) == (429, 429, 200)
    assert body["error"]["code"] == "too_many_streams"


@pytest.mark.gen_test
async def test_store_that_is_down_refuses(site: Site) -> None:
    """503 with Retry-After: nobody is told to be signed out."""
    browser = await site.signed_in()
    site.store.fail["load"] = StoreUnavailable("load")
    head = await browser.fetch("HEAD", "/events")
    response = await browser.get("/events")

    assert (head.code, response.code) == (503, 503)
    assert response.headers["Retry-After"]


@pytest.mark.gen_test
async def test_nothing_is_left_of_a_stream(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is watched, subscribed or in progress; one line of the access log, and no error."""
    subscribers = list(site.sessions.events.subscribers)
    browser, _ = await site.signed_in(), await site.signed_in()
    with caplog.at_level(logging.INFO):
        async with opened(site, browser, LIST) as stream:
            [await stream.next(), await stream.next()]
            watched, during = len(site.sessions.watch), list(caplog.messages)

    assert watched == 3  # its own session for its end and for its time, and the other
    assert len(site.sessions.watch) == 0
    assert site.sessions.events.subscribers == subscribers
    assert [line for line in during if "/events" in line] == []
    [line] = [record for record in caplog.records if "/events" in record.getMessage()]
    assert line.fields["path"] == "/events"  # type: ignore[attr-defined]
    assert line.fields["duration_ms"] > 0  # type: ignore[attr-defined]

"""`GET /events?list=sessions`: "Your sessions" as it changes while it is shown."""

from __future__ import annotations

import asyncio
import re

import pytest

from stormcellar.app.handlers import events
from stormcellar.stores import StoreUnavailable
from stormcellar.stores.memory import MemoryStore
from tests.app.live.stream import LIST, SOON_S, opened
from tests.support.site import PASSWORD, OpenSite, Site, session_handle


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are read often."""
    monkeypatch.setattr(events, "LIST_EVERY_S", 0.05)
    monkeypatch.setattr(events, "PAUSE_S", 0.01)


def handles(data: dict[str, str]) -> list[str]:
    """Return the handles of the sessions in the event `sessions`, in their order."""
    return re.findall("/account/sessions/([^/]+)/revoke", data["html"])


@pytest.mark.gen_test
async def test_list_comes_first_as_the_page_shows_it(site: Site) -> None:
    """The very HTML of the page, but for the form tokens."""
    await site.signed_in()
    site.clock.advance(300)
    browser = await site.signed_in()
    page = (await browser.get("/account/sessions")).body.decode()
    async with opened(site, browser, LIST) as stream:
        kinds = [await stream.next(), await stream.next()]

    [session, (kind, data)] = kinds
    assert (session[0], kind) == ("session", "sessions")
    without_tokens = [line.partition("<input")[0] for line in data["html"].splitlines()]
    assert [line for line in without_tokens if line not in page] == []
    assert "5 minutes ago" in data["html"]


@pytest.mark.gen_test
@pytest.mark.parametrize("is_here", [True, False])
async def test_new_sign_in_is_told(
    is_here: bool, open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once in the process that saw it, and in another one when the list is read the next time."""
    store = MemoryStore()
    site = open_site(store)
    elsewhere = site if is_here else open_site(store, clock=site.clock)
    monkeypatch.setattr(events, "LIST_EVERY_S", 3600.0 if is_here else 0.05)
    browser = await site.signed_in()
    async with opened(site, browser, LIST) as stream:
        first = [await stream.next(), await stream.next()][1]
        await elsewhere.signed_in("bob")
        is_silent = await stream.is_silent()
        other = await elsewhere.signed_in()
        kind, data = await stream.next()

    here = session_handle(site, browser)
    assert handles(first[1]) == [here]
    assert is_silent
    assert (kind, handles(data)) == ("sessions", [here, session_handle(elsewhere, other)])


@pytest.mark.gen_test
async def test_session_that_ends_is_told_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the announcement of the store: the list is not read meanwhile."""
    browser, other = await site.signed_in(), await site.signed_in()
    monkeypatch.setattr(events, "LIST_EVERY_S", 3600.0)
    async with opened(site, browser, LIST) as stream:
        first = [await stream.next(), await stream.next()][1]
        await other.submit("/", "/logout")
        kind, data = await stream.next()

    assert len(handles(first[1])) == 2
    assert (kind, handles(data)) == ("sessions", [session_handle(site, browser)])


@pytest.mark.gen_test
async def test_password_of_a_listed_session_is_told(site: Site) -> None:
    """It was signed in anew: the list says so, and goes on to hear of it."""
    browser, other = await site.signed_in(), await site.signed_in()
    site.clock.advance(300)
    async with opened(site, browser, LIST) as stream:
        first = [await stream.next(), await stream.next()][1]
        await other.submit("/account/confirm", "/account/confirm", password=PASSWORD)
        again = await stream.next()
        await other.submit("/", "/logout")
        over = await stream.next()

    assert (first[1]["html"].count("just now</time>"), again[1]["html"].count("just now</time>")) == (0, 2)
    assert len(handles(over[1])) == 1


@pytest.mark.gen_test
async def test_nothing_is_sent_when_nothing_has_changed(site: Site) -> None:
    """However often the list is read, and although time goes by; the times are right when it is sent."""
    browser, other = await site.signed_in(), await site.signed_in()
    async with opened(site, browser, LIST) as stream:
        first = [await stream.next(), await stream.next()][1]
        before = site.store.calls["of_user"]
        site.clock.advance(600)
        async with asyncio.timeout(SOON_S):
            while site.store.calls["of_user"] < before + 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        is_silent = await stream.is_silent()
        await other.get("/")
        _, data = await stream.next()

    assert is_silent
    assert "10 minutes ago" not in first[1]["html"]
    assert data["html"].count("10 minutes ago</time>") == 2


@pytest.mark.gen_test
async def test_store_that_is_down_for_a_moment_ends_nothing(site: Site) -> None:
    """The list stays as it was, and goes on when the store answers again."""
    browser = await site.signed_in()
    async with opened(site, browser, LIST) as stream:
        [await stream.next(), await stream.next()]
        site.store.fail["of_user"] = site.store.fail["states"] = StoreUnavailable("of_user")
        is_silent = await stream.is_silent()
        site.store.fail.clear()
        await site.signed_in()
        kind, _ = await stream.next()

    assert (is_silent, kind) == (True, "sessions")


@pytest.mark.gen_test
async def test_calls_of_the_store_for_an_open_page(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load and a read of the list at first, and a check of each session that is watched."""
    browser, _ = await site.signed_in(), await site.signed_in()
    monkeypatch.setattr(events, "LIST_EVERY_S", 3600.0)
    await site.sessions.drain()
    site.store.calls.clear()
    async with opened(site, browser, LIST) as stream:
        [await stream.next(), await stream.next()]
        await stream.is_silent()

    assert (site.store.calls.keys(), site.store.calls["load"]) == ({"load", "of_user", "states"}, 1)
    assert site.store.calls["of_user"] == 1
    assert site.store.calls["states"] <= 4  # three are watched, and all of them once the store is listened to

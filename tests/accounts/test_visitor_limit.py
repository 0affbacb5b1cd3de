"""Sessions that visitors begin are counted by address; nobody else is."""

from __future__ import annotations

import asyncio

import pytest
from tornado.httpclient import HTTPResponse

from stormcellar.stores import StoreUnavailable
from stormcellar.stores.memory import MemoryStore
from tests.support.browser import Browser
from tests.support.fakes import START_S
from tests.support.site import JSON, OpenSite, Site


async def write(browser: Browser, **headers: str) -> HTTPResponse:
    """Keep something, as a script does."""
    return await browser.fetch(
        "PATCH", "/session", body=b'{"a": 1}', headers={"Content-Type": JSON, **headers}
    )


@pytest.fixture
def strict(open_site: OpenSite) -> Site:
    """A site where three visitors an hour may begin a session from one address."""
    return open_site(visitors=3)


@pytest.mark.gen_test
async def test_so_many_an_hour_and_no_more(strict: Site) -> None:  # H7, D6
    """Of eight at once three begin; the others are told when, and at that moment the next may."""
    strict.clock.now_s = START_S // 3600 * 3600 + 600.5
    responses = await asyncio.gather(*[write(strict.browser()) for _ in range(8)])
    refused = [response for response in responses if response.code == 429]
    made = len(await strict.records())
    strict.clock.advance(2999)
    before = await write(strict.browser())
    strict.clock.advance(0.5)
    after = await write(strict.browser())

    assert (len(refused), made) == (5, 3)
    assert {response.headers["Retry-After"] for response in refused} == {"3000"}
    assert (before.code, after.code) == (429, 200)


@pytest.mark.gen_test
async def test_who_has_a_session_or_signs_in_is_not_counted(strict: Site) -> None:  # A15, H7
    """Looking costs nothing, a session that exists goes on being written, and sign-in is open."""
    visitor = strict.browser()
    await write(visitor)
    for _ in range(5):
        await strict.browser().get("/session")
        assert (await write(visitor)).code == 200
    await write(strict.browser())
    await write(strict.browser())

    assert (await write(strict.browser())).code == 429
    assert await strict.signed_in("alice")


@pytest.mark.gen_test
async def test_a_refused_visitor_gets_no_cookie(strict: Site) -> None:
    """The answer is an error like any other, and leaves no record."""
    for _ in range(3):
        await write(strict.browser())
    browser = strict.browser()
    response = await write(browser)

    assert b'"throttled"' in response.body
    assert browser.cookies == {}
    assert len(await strict.records()) == 3


@pytest.mark.gen_test
async def test_processes_share_the_count(open_site: OpenSite) -> None:  # D11, H7
    """Two processes on one store admit three together."""
    store = MemoryStore()
    sites = [open_site(store, visitors=3) for _ in range(2)]
    codes = [(await write(site.browser())).code for site in sites * 2]

    assert codes == [200, 200, 200, 429]


@pytest.mark.gen_test
async def test_what_cannot_be_counted_is_not_begun(strict: Site) -> None:  # E12
    """With the store down the answer is 503."""
    strict.store.fail["take"] = StoreUnavailable("take")
    response = await write(strict.browser())

    assert response.code == 503
    assert await strict.records() == []

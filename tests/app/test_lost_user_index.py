"""Where Redis has lost the list of a user's sessions, "sign out the others" ends all or is an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from secrets import token_urlsafe
from typing import Any

import pytest
import redis

from stormcellar.events import Kind
from stormcellar.stores import open_store
from tests.conftest import StartServer
from tests.stores.redis.conftest import KINDS
from tests.stores.redis.samples import index_key, redis_client
from tests.support.backends import Server
from tests.support.browser import Browser
from tests.support.proxy import DroppingProxy
from tests.support.site import OpenSite, Site

OTHERS = 3
DONE, NOT_NOW = 204, 503


class Lossy:
    """A Redis that may lose the index of a user, and a site on it that has the account `app`.

    Args:
        policy: Its `maxmemory-policy`; None if the account may not ask for it.
    """

    def __init__(self, server: Server, open_site: OpenSite, policy: str | None, *, port: int = 0) -> None:
        self.prefix = f"test-{token_urlsafe(6)}"
        self.admin: redis.Redis = redis_client(server.port)
        self.admin.config_set("maxmemory-policy", policy or "noeviction")
        self.allow("+@all", *(() if policy else ("-info",)))
        place = f"//app:pw@127.0.0.1:{port or server.port}"
        scheme = server.url.partition(":")[0]
        self.site: Site = open_site(open_store(f"{scheme}:{place}", prefix=self.prefix, timeout_s=3))

    def allow(self, *rules: str) -> None:
        """Set what the account of the site may do."""
        command: Any = self.admin.execute_command
        command("ACL", "SETUSER", "app", "reset", "on", ">pw", "~*", "&*", *rules)

    def lose_index(self) -> None:
        """Remove the list of alice's sessions, as eviction does."""
        assert self.admin.delete(index_key(self.prefix, "alice")) == 1


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, start_server: StartServer) -> Iterator[Server]:
    """A server of each kind, whose settings the test may change."""
    return start_server(request.param)


async def revoke_others(browser: Browser) -> int:
    """Return the status of "sign out the others"."""
    status, _ = await browser.json("POST", "/account/sessions/revoke-others")
    return status


async def users(*browsers: Browser) -> list[Any]:
    """Return who is signed in where."""
    return [(await each.json("GET", "/session"))[1]["user"] for each in browsers]


@pytest.mark.parametrize("policy", ["volatile-lru", "allkeys-lru", None])
@pytest.mark.parametrize("is_begun_again", [False, True])
@pytest.mark.gen_test(timeout=60)
async def test_all_others_are_ended_although_their_list_was_lost(
    server: Server, open_site: OpenSite, policy: str | None, is_begun_again: bool
) -> None:  # C8 G14
    """Also if a later sign-in has begun another list, which looks like any; and again after the next loss."""
    lossy = Lossy(server, open_site, policy)
    for _ in range(2):
        browser = await lossy.site.signed_in()
        others = [await lossy.site.signed_in() for _ in range(OTHERS)]
        stranger = await lossy.site.signed_in("bob")
        lossy.lose_index()
        if is_begun_again:
            others.append(await lossy.site.signed_in())
        lossy.site.events.clear()

        status = await revoke_others(browser)

        ended = [event for event in lossy.site.events if event.kind is Kind.DESTROYED]
        assert status == DONE
        assert await users(browser, *others, stranger) == ["alice", *[None] * len(others), "bob"]
        assert len(ended) >= len(others)


@pytest.mark.gen_test(timeout=60)
async def test_nobody_is_told_that_it_is_done_if_the_sessions_cannot_be_found(
    server: Server, open_site: OpenSite
) -> None:
    """Without the right to read all keys it is an outage; with it, all others are ended."""
    lossy = Lossy(server, open_site, "volatile-lru")
    browser = await lossy.site.signed_in()
    others = [await lossy.site.signed_in() for _ in range(OTHERS)]
    lossy.lose_index()
    lossy.allow("+@all", "-scan")

    refused = await revoke_others(browser)
    alive = await users(*others)
    lossy.allow("+@all")
    served = await revoke_others(browser)

    assert (refused, alive) == (NOT_NOW, ["alice"] * OTHERS)
    assert (served, await users(*others)) == (DONE, [None] * OTHERS)


@pytest.mark.gen_test(timeout=60)
async def test_scan_without_a_reply_is_no_success(start_server: StartServer, open_site: OpenSite) -> None:
    """The scan is asked for twice; then it is an outage, and the next request ends all others."""
    redis8 = start_server("redis8")
    async with DroppingProxy(redis8.port, protocol="redis") as proxy:
        lossy = Lossy(redis8, open_site, "volatile-lru", port=proxy.port)
        browser = await lossy.site.signed_in()
        others = [await lossy.site.signed_in() for _ in range(OTHERS)]
        lossy.lose_index()
        proxy.drop_replies(lambda request: b"redis.call('SCAN'" in request, hang=True)

        refused = await revoke_others(browser)
        alive = await users(*others)
        served = await revoke_others(browser)

        assert (refused, alive) == (NOT_NOW, ["alice"] * OTHERS)
        assert (served, await users(*others)) == (DONE, [None] * OTHERS)
        await lossy.site.close()
        await asyncio.sleep(0.05)  # the proxy sees the connections end before it is closed itself


@pytest.mark.gen_test(timeout=60)
async def test_list_that_is_lost_during_the_scan_is_not_trusted_later(
    server: Server, open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan finds all others; those who sign in later are found by another scan."""
    lossy = Lossy(server, open_site, "volatile-lru")
    browser = await lossy.site.signed_in()
    others = [await lossy.site.signed_in() for _ in range(OTHERS)]
    index: Any = lossy.site.store.inner._index
    scanning = index._client.handles

    async def losing(*arguments: Any, **options: Any) -> Any:
        lossy.lose_index()
        async for page in scanning(*arguments, **options):
            yield page

    monkeypatch.setattr(index._client, "handles", losing)
    lossy.lose_index()
    first = await revoke_others(browser)
    monkeypatch.undo()
    later = [await lossy.site.signed_in() for _ in range(OTHERS)]
    lossy.lose_index()
    second = await revoke_others(browser)

    assert (first, second) == (DONE, DONE)
    assert await users(browser, *others, *later) == ["alice", *[None] * (2 * OTHERS)]

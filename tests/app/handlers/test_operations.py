"""`GET /readyz`: what balancers are told, and what the log says of it."""

from __future__ import annotations

import asyncio
import logging
from secrets import token_urlsafe

import pytest
from tornado.httpclient import HTTPResponse

from stormcellar.stores import Problem, ReplicasMissing, StoreRefused, StoreUnavailable, open_store
from tests.conftest import StartServer
from tests.stores.redis.samples import redis_client
from tests.support.backends import Backend
from tests.support.site import OpenSite, Site, sign_in

RIGHT = StoreRefused("ping", Problem("the Redis user lacks a right: +hset", "grant it"))
ANOTHER = StoreRefused("ping", Problem("the Redis user lacks a right: +hdel", "grant it"))
REPLICAS = ReplicasMissing("ping", Problem("0 of the 1 replicas confirm writes", "start them"))
OVER = "/readyz: the store is in order again"


async def asked(site: Site, *faults: Exception | None) -> list[int]:
    """Return the statuses of `/readyz` while the store has one fault after the other."""
    statuses = []
    for fault in faults:
        site.store.fail = {} if fault is None else {"ping": fault}
        statuses.append((await site.browser().get("/readyz")).code)
    return statuses


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines about `/readyz`."""
    return [message for message in caplog.messages if message.startswith("/readyz")]


@pytest.mark.gen_test
async def test_reason_is_logged_once_until_it_changes(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A balancer asks each second: there is a line for each change and for the end, not for each request."""
    with caplog.at_level(logging.INFO):
        statuses = await asked(site, None, RIGHT, RIGHT, ANOTHER, ANOTHER, None, None, RIGHT)

    assert statuses == [200, 503, 503, 503, 503, 200, 200, 503]
    assert lines(caplog) == [
        "/readyz is 503: the Redis user lacks a right: +hset; grant it",
        "/readyz is 503: the Redis user lacks a right: +hdel; grant it",
        OVER,
        "/readyz is 503: the Redis user lacks a right: +hset; grant it",
    ]


@pytest.mark.gen_test
async def test_requests_share_a_ping(site: Site) -> None:
    """A flood of `/readyz`, which needs no cookie, costs the store one ping at a time."""
    gate = site.store.gate("ping")
    requests = [asyncio.ensure_future(site.browser().get("/readyz")) for _ in range(20)]
    await gate.reached()
    while site.context.in_flight.count < len(requests):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    gate.open()

    assert {answer.code for answer in await asyncio.gather(*requests)} == {200}
    assert site.store.calls["ping"] == 1


@pytest.mark.gen_test
async def test_driver_text_is_not_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:  # L8
    """It can repeat a password; the kind of the failure is enough."""
    await asked(site, StoreUnavailable("redis://user:password@host refused"))

    assert lines(caplog) == [
        "/readyz is 503: the store does not answer (StoreUnavailable); "
        "check that it runs at the address in its URL"
    ]


@pytest.mark.gen_test
async def test_missing_replicas_are_logged_and_pass(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Every server has the same store: if all of them were taken out, no session could be read."""
    with caplog.at_level(logging.INFO):
        statuses = await asked(site, REPLICAS, REPLICAS, RIGHT, REPLICAS, None)

    passes = "/readyz is 200, but: 0 of the 1 replicas confirm writes; start them"
    assert statuses == [200, 200, 503, 200, 200]
    assert lines(caplog) == [passes, f"/readyz is 503: {RIGHT.problem}", passes, OVER]


@pytest.mark.gen_test
async def test_server_that_stops_logs_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """It has said that it stops, and the store has no fault."""
    site.context.in_flight.is_draining = True
    statuses = await asked(site, RIGHT)

    assert (statuses, lines(caplog)) == ([503], [])


@pytest.mark.gen_test
async def test_sessions_are_read_while_replicas_are_missing(
    redis8: Backend, open_site: OpenSite, caplog: pytest.LogCaptureFixture
) -> None:  # G13
    """With `?wait=1` and no replica pages work and the server is ready; a sign-in is refused."""
    prefix = f"test-{token_urlsafe(6)}"
    before = open_site(open_store(redis8.url, prefix=prefix))
    browser = await before.signed_in()
    site = open_site(open_store(f"{redis8.url}?wait=1", prefix=prefix))
    other = site.browser()
    other.cookies.update(browser.cookies)
    read = await other.json("GET", "/session")
    answers: list[HTTPResponse] = [await sign_in(site.browser()), await site.browser().get("/readyz")]

    assert (read[0], read[1]["user"]) == (200, "alice")
    assert [answer.code for answer in answers] == [503, 200]
    assert [line for line in lines(caplog) if "0 of the 1 replicas" in line] == lines(caplog) != []


@pytest.mark.gen_test
async def test_right_that_is_revoked_is_named_in_the_log(
    start_server: StartServer, open_site: OpenSite, caplog: pytest.LogCaptureFixture
) -> None:  # G10
    """Body and status do not tell it: anybody may ask."""
    server = start_server("redis8")
    site = open_site(open_store(server.url, prefix=f"test-{token_urlsafe(6)}"))
    with redis_client(server.port) as admin:
        admin.execute_command("ACL", "SETUSER", "default", "-zscan")  # type: ignore[no-untyped-call]
        answer = await site.browser().get("/readyz")

    assert (answer.code, answer.body) == (503, b'{"status": "store unavailable"}')
    assert [line for line in lines(caplog) if "+zscan" in line] == lines(caplog) != []

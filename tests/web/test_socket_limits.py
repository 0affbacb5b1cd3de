"""The limits of sockets and streams: how many may be open, how many messages one sends, and which verbs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

from stormcellar import SessionSocketMixin, SessionStreamMixin
from stormcellar.web.socket_limits import Bucket, OpenCounts, TooMany
from tests.support.browser import Browser
from tests.support.embedding import Lab
from tests.support.fakes import Clock
from tests.web.test_socket_mixin import Echo, idle, lab, said, socket

__all__ = ["lab", "socket"]  # fixtures


def taken(bucket: Bucket, most: int = 1000) -> int:
    """Return how many messages are allowed now."""
    return next(number for number in range(most) if not bucket.take())


def test_rate_of_messages() -> None:  # J6
    """Twice the rate at once, then the rate; a pause, however long, allows no more than at first."""
    clock = Clock()
    bucket = Bucket(2.0, clock=clock)
    allowed = [taken(bucket)]
    for pause_s in (0.4, 0.1, 1.0, 3600.0):
        clock.advance(pause_s)
        allowed.append(taken(bucket))

    assert allowed == [4, 0, 1, 2, 4]


def test_rate_below_one_a_second_allows_one_at_once() -> None:
    """Otherwise no message would ever be allowed."""
    clock = Clock()
    bucket = Bucket(0.1, clock=clock)
    allowed = [taken(bucket)]
    clock.advance(10.1)

    assert [*allowed, taken(bucket)] == [1, 1]


def test_refused_one_is_not_counted() -> None:
    """Neither for the session nor for the address; the message names the limit."""
    counts = OpenCounts()
    counts.add({"session a": 2, "address 192.0.2.1": 1})
    with pytest.raises(TooMany, match=r"^1 are open for this address$"):
        counts.add({"session b": 2, "address 192.0.2.1": 1})
    with pytest.raises(TooMany, match=r"^1 are open for this session$"):
        counts.add({"session a": 1})
    counts.remove(["session a", "address 192.0.2.1"])

    assert not counts._open


class FromElsewhere(Echo):
    """The client's address is in a header, as a proxy passes it on."""

    max_sockets_per_address = 1

    def client_address(self) -> str:
        """Return it."""
        return self.request.headers["X-Address"]


@pytest.mark.gen_test
async def test_sockets_of_an_address_are_counted(lab: Lab, browser: Browser, socket: Any) -> None:  # J6
    """Over all sessions; of an IPv6 address by its /64, which one client has for itself."""
    addresses = ("192.0.2.1", "2001:db8::1")
    await lab.open_session(browser, user="alice")
    first = [
        await socket(FromElsewhere if n == 0 else None, **{"X-Address": a}) for n, a in enumerate(addresses)
    ]
    await lab.open_session(browser, user="bob")
    refused = []
    for address in ("192.0.2.1", "2001:db8::2"):
        with pytest.raises(HTTPClientError) as caught:
            await socket(**{"X-Address": address})
        refused.append(caught.value.code)
    other = [await socket(**{"X-Address": address}) for address in ("192.0.2.2", "2001:db8:0:1::1")]

    assert refused == [429, 429]
    assert [await said(each) for each in (*first, *other)] == ["alice hello"] * 2 + ["bob hello"] * 2
    for each in (*first, *other):
        each.close()
    await idle(lab)


@pytest.mark.gen_test
async def test_streams_and_sockets_are_counted_together(lab: Lab, browser: Browser, socket: Any) -> None:
    """Each class has a limit of its own for what is open in all."""

    class Stream(SessionStreamMixin, RequestHandler):
        max_streams_per_address = 1

        async def get(self) -> None:
            async with self.event_stream():
                raise AssertionError("the limit was not seen")

    await lab.open_session(browser, user="alice")
    connection = await socket(Echo)
    lab.app.add_handlers(".*", [("/feed", Stream)])

    assert (await browser.get("/feed")).code == 429
    connection.close()


class Verbs(SessionSocketMixin, WebSocketHandler):
    """Does what a message says with a fresh session."""

    async def on_message(self, message: str | bytes) -> None:
        """Run the verb, and answer with what came of it."""
        async with self.fresh_session() as session:
            try:
                if message == "renew":
                    await session.renew()
                elif message == "expire_in":
                    await session.expire_in(60)
                elif message == "flash":
                    session.flash("Hello")
                answer = "done"
            except RuntimeError as exc:
                answer = str(exc)
        self.write_message(json.dumps(answer))


@pytest.mark.parametrize(
    ("verb", "answer"),
    [("renew", "no browser would get a new one"), ("expire_in", ""), ("flash", "done")],
)
@pytest.mark.gen_test
async def test_verb_that_needs_a_cookie_is_refused(
    lab: Lab, browser: Browser, socket: Any, verb: str, answer: str
) -> None:  # J7
    """With the reason; the others work."""
    await lab.open_session(browser, user="alice")
    connection = await socket(Verbs)

    assert answer in json.loads(await said(connection, verb))
    connection.close()

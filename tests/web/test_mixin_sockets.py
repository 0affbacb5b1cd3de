"""`SessionMixin` on a `WebSocketHandler`: the session is readable, and never holds up the 101."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from tornado.httpclient import HTTPRequest
from tornado.ioloop import IOLoop
from tornado.websocket import WebSocketHandler, websocket_connect

from stormcellar import SessionMixin
from stormcellar.stores import StoreUnavailable
from tests.support.browser import Browser
from tests.support.embedding import Lab, Wire

BASES = (SessionMixin, WebSocketHandler)
UPGRADE = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
]


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """An application whose sessions are on a steered store."""
    lab = Lab()
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


async def _say(browser, port):
    """Connect with the cookies of *browser*; return the first message."""
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    request = HTTPRequest(f"ws://127.0.0.1:{port}/", headers={"Cookie": cookies})
    connection = await websocket_connect(request)
    message = await connection.read_message()
    connection.close()
    await connection.read_message()
    return message


@pytest.mark.gen_test
async def test_session_is_readable(lab, browser, http_port):
    """The handshake loads the session, whose user and values can be read while the socket is open."""

    def open(self):
        self.write_message(f"{self.session.user} {self.session['cart']}")

    await lab.open_session(browser, user="alice", cart=[1])
    lab.serve("/", bases=BASES, open=open)

    message = await _say(browser, http_port)

    assert message == "alice [1]"
    assert dict(lab.store.calls) == {"load": 1}


@pytest.mark.parametrize("where", ["prepare", "open"])
@pytest.mark.gen_test
async def test_assignment_raises(where, lab, browser, http_port):
    """Assignment and sign-in raise in a handshake and after it, instead of being lost."""

    async def change(self):
        for attempt in (lambda: self.session.update(a=1), self.session.logout):
            try:
                done = attempt()
                if done is not None:
                    await done
            except RuntimeError as exc:
                raised.append(str(exc))

    async def prepare(self):
        await SessionMixin.prepare(self)
        if where == "prepare":
            await change(self)

    async def open(self):
        if where == "open":
            await change(self)
        self.write_message("open")

    raised = []
    await lab.open_session(browser, user="alice")
    lab.serve("/", bases=BASES, prepare=prepare, open=open)

    message = await _say(browser, http_port)

    reason = "a WebSocket handshake saves nothing" if where == "prepare" else "the response has begun"
    assert message == "open"
    assert raised == [f"the session can no longer change: {reason}"] * 2
    assert len(await lab.records()) == 1


@pytest.mark.parametrize("item", [2, {3}])
@pytest.mark.gen_test
async def test_nested_change_in_a_handshake(item, lab, http_server, http_port, http_client, caplog):
    """A nested change in a handshake is logged as an error and not written; the 101 is answered."""
    browser = Browser(http_client, "")
    sid = await lab.open_session(browser, cart=[1])

    async def prepare(self):
        await SessionMixin.prepare(self)
        self.session["cart"].append(item)

    lab.serve("/", bases=BASES, prepare=prepare)
    wire = await Wire.connect(http_port)

    wire.ask("GET / HTTP/1.1", [*UPGRADE, f"Cookie: id={browser.cookies['id']}"])
    reply = await wire.reply()

    assert reply.status == 101
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == [
        f"session {sid.handle} changed too late to be saved: a WebSocket handshake saves nothing"
    ]
    assert await lab.data() == {"cart": [1]}
    await wire.close()


@pytest.mark.gen_test
async def test_ended_session(lab, http_server, http_port, http_client):
    """The 101 clears the cookie of an ended session, and the socket is anonymous."""
    browser = Browser(http_client, "")
    await lab.open_session(browser, user="alice")
    lab.clock.advance(50_000)
    lab.serve("/", bases=BASES)
    wire = await Wire.connect(http_port)

    wire.ask("GET / HTTP/1.1", [*UPGRADE, f"Cookie: id={browser.cookies['id']}"])
    reply = await wire.reply()

    assert reply.status == 101
    assert [line.partition(";")[0] for line in reply.get_list("Set-Cookie")] == ["id="]
    await wire.close()


@pytest.mark.gen_test
async def test_store_down(lab, http_server, http_port, http_client):
    """Without a store a handshake with a cookie is a 503."""
    browser = Browser(http_client, "")
    await lab.open_session(browser, user="alice")
    lab.store.fail["load"] = StoreUnavailable("down")
    lab.serve("/", bases=BASES)
    wire = await Wire.connect(http_port)

    wire.ask("GET / HTTP/1.1", [*UPGRADE, f"Cookie: id={browser.cookies['id']}"])
    reply = await wire.reply()

    assert reply.status == 503
    await wire.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 400),
        ([*UPGRADE, "Origin: https://evil.example"], 403),
        ([*UPGRADE, "Sec-Fetch-Site: cross-site"], 403),
    ],
)
@pytest.mark.gen_test
async def test_refused_handshake(headers, status, lab, http_server, http_port):
    """What Tornado refuses is refused with the mixin too: no upgrade asked for, or another site."""
    lab.serve("/", bases=BASES)
    wire = await Wire.connect(http_port)

    wire.ask("GET / HTTP/1.1", headers)
    reply = await wire.reply()

    assert reply.status == status
    await wire.close()

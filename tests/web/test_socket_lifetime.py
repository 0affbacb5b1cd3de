"""How long a socket stays open: with a client that is there, and only as long as its session may live."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tornado.websocket import WebSocketHandler

from stormcellar import SessionSocketMixin
from tests.support.browser import Browser
from tests.support.embedding import Lab, Wire
from tests.web.test_socket_mixin import SOON_S, Echo, Writes, closed, lab, said, socket

__all__ = ["lab", "socket"]  # fixtures

CLOSE_FRAME = b"\x88"
HANDSHAKE = (
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    *("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Origin: http://localhost"),
)


class Pinged(Echo):
    """Counts the answers to its pings; everything else would be activity."""

    ping_every_s = 0.02
    socket_activity = "messages"
    pongs: list[bytes]

    def on_pong(self, data: bytes) -> None:
        """Count it."""
        self.pongs.append(data)


@pytest.mark.gen_test
async def test_pings_are_no_activity(lab: Lab, browser: Browser, socket: Any) -> None:  # J4 J6
    """However many are answered, the time of the session goes on."""
    pongs: list[bytes] = []
    await lab.open_session(browser, user="alice")
    # A socket whose client does not answer within this time is closed, on a busy machine, too.
    connection = await socket(type("Counts", (Pinged,), {"pongs": pongs, "ping_every_s": 0.5}))
    await lab.sessions.drain()
    lab.clock.advance(61)
    before = lab.store.calls["apply"]
    async with asyncio.timeout(SOON_S):
        while len(pongs) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await lab.sessions.drain()

    assert lab.store.calls["apply"] == before
    connection.close()


@pytest.mark.gen_test
async def test_client_that_has_gone_is_closed(
    lab: Lab, browser: Browser, socket: Any, http_port: int
) -> None:  # J6
    """One that answers no ping does not keep its place for ever."""
    sid = await lab.open_session(browser, user="alice")
    lab.app.add_handlers(".*", [("/", type("Silent", (Pinged,), {"pongs": []}))])
    wire = await Wire.connect(http_port)
    wire.ask("GET / HTTP/1.1", [*HANDSHAKE, f"Cookie: id={lab.signed(sid)}"])
    reply = await wire.reply()
    received = b""
    async with asyncio.timeout(SOON_S):
        while CLOSE_FRAME not in received:
            received += await wire.first_byte()
    await wire.close()

    assert reply is not None
    assert (reply.status, received) == (101, b"\x89\x00" + CLOSE_FRAME)


@pytest.mark.gen_test
async def test_compression_is_off(lab: Lab, browser: Browser, http_server: Any, http_port: int) -> None:  # J6
    """The size of a compressed message could reveal a secret in it."""
    sid = await lab.open_session(browser, user="alice")
    lab.app.add_handlers(".*", [("/", Echo)])
    wire = await Wire.connect(http_port)
    offers = (f"Cookie: id={lab.signed(sid)}", "Sec-WebSocket-Extensions: permessage-deflate")
    wire.ask("GET / HTTP/1.1", [*HANDSHAKE, *offers])
    reply = await wire.reply()
    await wire.close()

    assert reply is not None
    assert (reply.status, reply.get_list("Sec-WebSocket-Extensions")) == (101, [])


@pytest.mark.gen_test
async def test_setting_of_tornado_wins(lab: Lab, browser: Browser, socket: Any) -> None:
    """Those who set the interval for all sockets get it."""
    lab.app.settings["websocket_ping_interval"] = 7
    intervals: list[float] = []

    class Tells(SessionSocketMixin, WebSocketHandler):
        def open(self, *args: str, **kwargs: str) -> None:
            intervals.append(self.ping_interval)

        def on_message(self, message: str | bytes) -> None:
            self.write_message(message)

    await lab.open_session(browser, user="alice")
    connection = await socket(Tells)
    await said(connection)

    assert intervals == [7]
    connection.close()


@pytest.mark.gen_test
async def test_busy_socket_ends_at_the_absolute_limit(
    lab: Lab, browser: Browser, socket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:  # J4
    """Messages that count as activity extend the idle limit, and nothing else."""
    monkeypatch.setattr("stormcellar.web.open_socket.TOUCH_AGAIN_S", 0.0)
    handlers: list[Any] = []
    await lab.open_session(browser, user="alice")
    members = {"socket_activity": "messages", "open": lambda handler: handlers.append(handler)}
    connection = await socket(type("Active", (Echo,), members))
    lifetime, answers, records = lab.sessions.lifetime, [], []
    for _ in range(int(lifetime.absolute_s // (lifetime.idle_s - 1))):
        lab.clock.advance(lifetime.idle_s - 1)
        answers.append(await said(connection))
        await lab.sessions.drain()
        records += await lab.records()
    lab.clock.advance(lifetime.idle_s - 1)
    # The timer runs on the clock of the loop, which no test moves.
    lab.sessions.watch.check(handlers[0]._stormcellar.socket.watched)

    assert answers == ["alice hello"] * len(records)
    assert await closed(connection) == (4401, "expired")


@pytest.mark.gen_test
async def test_renewed_id_keeps_the_socket(lab: Lab, browser: Browser, socket: Any) -> None:  # J5
    """The socket follows the new ID, and closes when the session ends under it."""
    sid = await lab.open_session(browser, user="alice")
    connection = await socket(Echo)
    await lab.supersede(sid)
    after = await said(connection)
    await lab.end(sid.handle)

    assert after == "alice hello"
    assert await closed(connection) == (4401, "signed_out")


@pytest.mark.gen_test
async def test_message_right_after_a_renewal_is_handled(
    lab: Lab, browser: Browser, socket: Any
) -> None:  # J5 J7
    """The session is live, also before the watch has heard of the new ID."""
    sid = await lab.open_session(browser, user="alice", cart=[1])
    connection = await socket(Writes)
    gate = lab.store.gate("states")
    await lab.supersede(sid)
    await gate.reached()

    answer = await said(connection, "count")

    assert answer == '{"cart": [1], "n": 1}'
    gate.open()
    connection.close()


@pytest.mark.gen_test
async def test_message_right_after_a_sign_in_is_not_handled(
    lab: Lab, browser: Browser, socket: Any
) -> None:  # J5 J7
    """The socket belongs to whom the handshake saw, also before the watch has heard of the sign-in."""
    sid = await lab.open_session(browser, user="alice")
    connection = await socket(Writes)
    gate = lab.store.gate("states")
    await lab.sign_in_elsewhere(sid, "bob")
    await gate.reached()

    await connection.write_message("write")

    assert await closed(connection) == (4401, "replaced")
    assert await lab.data() == {}
    gate.open()

"""WebSockets and server-sent events of a test client."""

from __future__ import annotations

import asyncio

import pytest
from tornado.httpclient import HTTPClientError
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketClosedError

from stormcellar import Kind, Lifetime
from stormcellar.testing import Client, Closed, ServerEvent, SocketClosed, make_manager
from tests.testing.shop import make_app


@pytest.mark.gen_test
async def test_socket_of_a_user(client: Client) -> None:
    """Messages go both ways: text, bytes and JSON."""
    await client.force_login("alice")

    async with client.websocket_connect("/room", subprotocols=["chat", "x"]) as socket:
        await socket.write_message("hello")
        text = await socket.read_message()
        await socket.write_message(b"\x00")
        raw = await socket.read_message()
        await socket.write_message({"n": 1})
        mapping = await socket.read_message()

        assert (text, raw, mapping) == ("alice: hello", b"\x00", 'alice: {"n": 1}')
        assert socket.selected_subprotocol == "chat"


@pytest.mark.gen_test
async def test_refused_handshakes(client: Client) -> None:
    """The status says why: nobody is signed in, or the Origin is foreign or missing."""
    codes = []
    for user, headers in (
        (None, {}),
        ("alice", {"Origin": "https://evil.example"}),
        ("alice", {"Origin": None}),
    ):
        if user is not None:
            await client.force_login(user)
        with pytest.raises(HTTPClientError) as caught:
            async with client.websocket_connect("/room", headers=headers):
                pass
        codes.append(caught.value.code)

    assert codes == [401, 403, 403]


@pytest.mark.gen_test
async def test_socket_is_closed_at_the_sign_out(client: Client) -> None:
    """Code and reason are those that a browser sees; there is no further message."""
    await client.force_login("alice")

    async with client.websocket_connect("/room") as socket:
        await socket.write_message("")
        await client.logout_everywhere("alice")

        assert await socket.closed() == Closed(4401, "signed_out")
        with pytest.raises(SocketClosed, match="4401 signed_out") as caught:
            await socket.read_message()
        assert caught.value.closed.code == 4401
        with pytest.raises(WebSocketClosedError):
            await socket.write_message("too late")


@pytest.mark.gen_test
async def test_socket_is_closed_when_the_clock_is_moved(client: Client) -> None:
    """A session whose time is over closes its sockets at once; before that they stay open."""
    await client.force_login("alice")

    async with client.websocket_connect("/room") as socket:
        client.clock.advance(1799)
        with pytest.raises(TimeoutError, match="the socket was not closed in time"):
            await socket.closed(timeout_s=0.1)
        client.clock.advance(1)

        assert await socket.closed() == Closed(4401, "expired")
    assert client.events[-1].kind is Kind.EXPIRED


@pytest.mark.gen_test
async def test_message_that_does_not_come(client: Client) -> None:
    """The wait for a message has an end, and the socket goes on."""
    await client.force_login("alice")

    async with client.websocket_connect("/room") as socket:
        with pytest.raises(TimeoutError, match="no message came in time"):
            await socket.read_message(timeout_s=0.01)
        await socket.write_message("hello")

        assert await socket.read_message() == "alice: hello"


@pytest.mark.gen_test
async def test_stream_of_a_user(client: Client) -> None:
    """Events are read one by one, also long ones; the last one tells the end of the session."""
    await client.force_login("alice")

    async with client.event_stream("/feed") as events:
        first, second = await events.next(), await events.next()
        assert first is not None and second is not None
        await client.logout()
        rest = [event async for event in events]

        assert (events.code, events.headers["Content-Type"]) == (200, "text/event-stream")
        assert (first, first.json()) == (ServerEvent('{"n": 1}'), {"n": 1})
        assert (second.event, second.id, len(second.json())) == ("long", "7", 100_000)
        assert rest == [ServerEvent('{"reason": "signed_out"}', "session_over")]
        assert await events.next() is None


@pytest.mark.gen_test
async def test_refused_stream(client: Client) -> None:
    """A visitor gets no stream, but a status."""
    async with client.event_stream("/feed") as events:
        assert events.code == 401


@pytest.mark.gen_test
async def test_end_of_the_block_hangs_up(client: Client) -> None:
    """The application notices that its client has gone."""
    await client.force_login("alice")

    async with client.event_stream("/feed") as events:
        await events.next()
        held = len(client.sessions.watch)
    async with asyncio.timeout(5):
        while len(client.sessions.watch):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert held == 1


LINES = ": comment\n\ndata\n\nid: 1\nevent: a\n\ndata: x\ndata:y\nid\n\nevent: b\ndata: z\n\ndata: cut off"


@pytest.mark.gen_test
async def test_events_are_parsed_as_by_a_browser(client: Client, app: Application) -> None:
    """Comments and events without data are skipped; lines of data are joined; what is cut off is dropped."""

    class Raw(RequestHandler):
        def get(self) -> None:
            self.write(LINES)

    app.add_handlers(".*", [("/raw", Raw)])
    async with client.event_stream("/raw") as events:
        found = [event async for event in events]

    assert found == [ServerEvent(""), ServerEvent("x\ny", id=""), ServerEvent("z", "b")]


@pytest.mark.gen_test
async def test_event_that_does_not_come(client: Client, app: Application) -> None:
    """The wait for a response and for an event has an end."""

    class Silent(RequestHandler):
        async def get(self) -> None:
            await self.flush()
            await gate.wait()

    class Mute(RequestHandler):
        async def get(self) -> None:
            await gate.wait()

    gate = asyncio.Event()
    app.add_handlers(".*", [("/silent", Silent), ("/mute", Mute)])
    async with client.event_stream("/silent", timeout_s=0.05) as events:
        with pytest.raises(TimeoutError, match="no event came in time"):
            await events.next()
    with pytest.raises(TimeoutError, match="no response to GET /mute began in time"):
        async with client.event_stream("/mute", timeout_s=0.05):
            pass
    gate.set()


@pytest.mark.gen_test
async def test_connections_of_a_secure_application() -> None:
    """Sockets and streams work behind a cookie that is Secure, and end with the server."""
    sessions = make_manager(secure=True, lifetime=Lifetime(idle_s=60))

    async with Client(make_app(sessions), host="shop.example") as client:
        await client.force_login("alice")
        async with client.event_stream("/feed") as events, client.websocket_connect("/room") as socket:
            assert await events.next() is not None
            await sessions.aclose()

            assert await socket.closed() == Closed(1001, "stopped")

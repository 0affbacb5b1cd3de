"""`SessionSocketMixin`: a WebSocket is open only as long as its session is live."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.ioloop import IOLoop
from tornado.websocket import WebSocketHandler, websocket_connect

from stormcellar import SessionSocketMixin
from stormcellar.sessions.live.watch import Rechecks
from stormcellar.stores import StoreUnavailable
from tests.support.browser import Browser
from tests.support.embedding import Lab

SOON_S = 5.0


class Echo(SessionSocketMixin, WebSocketHandler):
    """Answers each message with the user and the message."""

    def on_message(self, message: str | bytes) -> None:
        """Echo it."""
        self.write_message(f"{self.session.user} {str(message)[:100]}")


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """An application whose sessions are on a steered store."""
    lab = Lab(rechecks=Rechecks(every_s=3600.0))
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


@pytest.fixture
def socket(lab: Lab, browser: Browser, http_port: int, io_loop: IOLoop) -> Iterator[Any]:
    """A function that serves a handler and connects to it with the cookies of the browser."""
    connections: list[Any] = []

    async def connect(handler: type | None = None, origin: str | None = "here", **headers: str) -> Any:
        if handler is not None:
            lab.app.add_handlers(".*", [("/", handler)])
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        if origin is not None:
            headers["Origin"] = f"http://127.0.0.1:{http_port}" if origin == "here" else origin
        asked = HTTPRequest(f"ws://127.0.0.1:{http_port}/", headers={"Cookie": cookies, **headers})
        connections.append(await websocket_connect(asked))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.close()
    io_loop.run_sync(lambda: asyncio.wait_for(idle(lab), SOON_S))


async def closed(connection: Any) -> tuple[int, str]:
    """Read until the socket is closed, and return code and reason."""
    async with asyncio.timeout(SOON_S):
        while await connection.read_message() is not None:
            pass
    return connection.close_code, connection.close_reason


async def said(connection: Any, message: str | bytes = "hello") -> Any:
    """Send a message and return the next one."""
    await connection.write_message(message)
    return await asyncio.wait_for(connection.read_message(), SOON_S)


async def idle(lab: Lab) -> None:
    """Wait until nothing is left of closed sockets."""
    async with asyncio.timeout(SOON_S):
        while len(lab.sessions.watch) or lab.sessions.watch.at_stop:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.gen_test
async def test_socket_ends_with_its_session(lab: Lab, browser: Browser, socket: Any) -> None:  # J3
    """A sign-out elsewhere closes it with 4401 and the reason, and leaves nothing behind."""
    sid = await lab.open_session(browser, user="alice")
    connection = await socket(Echo)
    before = await said(connection)

    await lab.end(sid.handle)

    assert before == "alice hello"
    assert await closed(connection) == (4401, "signed_out")
    await idle(lab)


@pytest.mark.gen_test
async def test_messages_after_the_end_are_dropped(lab: Lab, browser: Browser, socket: Any) -> None:  # J3
    """What comes while the close frame is on its way reaches no handler: it would speak for nobody."""
    heard: list[Any] = []

    class Listens(SessionSocketMixin, WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            heard.append(message)

    await lab.open_session(browser, user="alice")
    connection = await socket(Listens)
    for stop in list(lab.sessions.watch.at_stop):
        stop()
    await connection.write_message("too late")

    assert await closed(connection) == (1001, "stopped")
    await idle(lab)  # the server has read everything
    assert heard == []


@pytest.mark.parametrize(
    ("origin", "attributes", "user", "status"),
    [
        ("here", {}, None, 401),
        (None, {}, "alice", 403),
        ("https://evil.example", {}, "alice", 403),
        ("null", {}, "alice", 403),
        ("here", {"max_sockets_per_session": 0}, "alice", 429),
        ("here", {"max_sockets_per_address": 0}, "alice", 429),
    ],
)
@pytest.mark.gen_test
async def test_handshake_is_refused(
    lab: Lab, browser: Browser, socket: Any, origin: str, attributes: Any, user: str | None, status: int
) -> None:  # J1 J2
    """Before the 101: nobody signed in, no or a foreign Origin, too many sockets."""
    await lab.open_session(browser, user=user, cart=[1])

    with pytest.raises(HTTPClientError) as caught:
        await socket(type("Refuses", (Echo,), attributes), origin)

    assert caught.value.code == status
    assert len(lab.sessions.watch) == 0


@pytest.mark.parametrize("scheme", ["http", "HTTP", "https"])
@pytest.mark.gen_test
async def test_page_of_this_host_without_tls(
    scheme: str, lab: Lab, browser: Browser, socket: Any, http_port: int
) -> None:  # J1 J8
    """Where sessions need TLS, whoever is on the way may have written such a page: 403."""
    lab.sessions.secure = True
    await lab.open_session(browser, user="alice")
    try:
        connection = await socket(Echo, f"{scheme}://127.0.0.1:{http_port}")
    except HTTPClientError as exc:
        found: Any = exc.code
    else:
        found = await said(connection)
        connection.close()

    assert found == ("alice hello" if scheme == "https" else 403)


@pytest.mark.gen_test
async def test_tool_without_an_origin_is_served_by_choice(
    lab: Lab, browser: Browser, socket: Any
) -> None:  # J1
    """A class attribute lets in clients that are no browsers."""
    await lab.open_session(browser, user="alice")
    connection = await socket(type("ForTools", (Echo,), {"allow_originless": True}), None)

    assert await said(connection) == "alice hello"
    connection.close()


@pytest.mark.gen_test
async def test_sockets_of_a_session_are_counted(lab: Lab, browser: Browser, socket: Any) -> None:  # J6
    """One that was closed makes room for the next one."""
    await lab.open_session(browser, user="alice")
    first = await socket(type("One", (Echo,), {"max_sockets_per_session": 1}))
    with pytest.raises(HTTPClientError):
        await socket()

    first.close()
    await closed(first)
    await idle(lab)
    second = await socket()

    assert await said(second) == "alice hello"
    second.close()


@pytest.mark.gen_test
async def test_sign_in_of_a_visitor_closes_the_socket(lab: Lab, browser: Browser, socket: Any) -> None:  # J5
    """By choice visitors have sockets; the one of a visitor's session does not become a user's."""
    sid = await lab.open_session(browser, cart=[1])
    connection = await socket(type("ForAll", (Echo,), {"socket_visitors": True}))
    before = await said(connection)

    await lab.sign_in_elsewhere(sid, "alice")

    assert before == "None hello"
    assert await closed(connection) == (4401, "replaced")


@pytest.mark.gen_test
async def test_visitor_without_a_session_has_a_socket_by_choice(lab: Lab, socket: Any) -> None:
    """It holds no session, and is closed when the server stops."""
    connection = await socket(type("ForAll", (Echo,), {"socket_visitors": True}))
    before = await said(connection)

    await lab.sessions.aclose()

    assert before == "None hello"
    assert await closed(connection) == (1001, "stopped")


class Writes(SessionSocketMixin, WebSocketHandler):
    """Does with a fresh session what a message says, and answers with what came of it."""

    async def on_message(self, message: str | bytes) -> None:
        """Run the verb."""
        async with self.fresh_session() as session:
            if message == "write":
                session["seen"] = [*session.get("seen", []), self.session.user]
            elif message == "count":
                await session.modify("n", lambda n: (n or 0) + 1)
            elif message == "logout":
                await session.logout()
            elif message == "login":
                await session.login("bob")
            answer = json.dumps(dict(session))
        self.write_message(answer)


@pytest.mark.gen_test
async def test_fresh_session_reads_and_saves(lab: Lab, browser: Browser, socket: Any) -> None:  # J7
    """It sees what requests wrote since the handshake, and saves with the block; the snapshot stays."""
    sid = await lab.open_session(browser, user="alice", cart=[1])
    connection = await socket(Writes)
    await lab.write_elsewhere(sid, cart=[1, 2])

    answers = [json.loads(await said(connection, verb)) for verb in ("write", "count", "count")]

    assert answers[0] == {"cart": [1, 2], "seen": ["alice"]}
    assert await lab.data() == {"cart": [1, 2], "seen": ["alice"], "n": 2}
    connection.close()


@pytest.mark.gen_test
async def test_logout_in_a_fresh_session_closes_the_socket(lab: Lab, browser: Browser, socket: Any) -> None:
    """The session is over for every socket of it."""
    await lab.open_session(browser, user="alice")
    connection = await socket(Writes)
    other = await socket()

    await connection.write_message("logout")

    assert [await closed(each) for each in (connection, other)] == [(4401, "signed_out")] * 2
    assert await lab.records() == []


@pytest.mark.gen_test
async def test_sign_in_on_a_socket_is_refused(
    lab: Lab, browser: Browser, socket: Any, caplog: Any
) -> None:  # J7
    """No response could set the cookie: RuntimeError says so, and nothing changes."""
    await lab.open_session(browser, user="alice")
    connection = await socket(Writes)

    await connection.write_message("login")
    await closed(connection)

    assert "no browser would get a new one" in caplog.text
    assert [record.user for record in await lab.records()] == ["alice"]


@pytest.mark.gen_test
async def test_fresh_session_that_is_over_closes_the_socket(
    lab: Lab, browser: Browser, socket: Any
) -> None:  # J7
    """A message that comes before the announcement is not handled for a session that is gone."""
    sid = await lab.open_session(browser, user="alice")
    connection = await socket(Writes)
    gate = lab.store.gate("states")
    await lab.end(sid.handle)
    await gate.reached()

    await connection.write_message("write")

    assert await closed(connection) == (4401, "signed_out")
    gate.open()


@pytest.mark.gen_test
async def test_error_about_another_session_is_no_sign_out(lab: Lab, browser: Browser, socket: Any) -> None:
    """A handler that fails with SessionEnded, while its own session is live, closes with 1013."""

    class Asks(SessionSocketMixin, WebSocketHandler):
        async def on_message(self, message: str | bytes) -> None:
            async with self.sessions.open("x" * 22):
                raise AssertionError("there is no such session")

    await lab.open_session(browser, user="alice")
    connection = await socket(Asks)

    await connection.write_message("hello")

    assert await closed(connection) == (1013, "not_saved")


@pytest.mark.gen_test
async def test_store_that_is_down_asks_to_come_again(lab: Lab, browser: Browser, socket: Any) -> None:
    """A message that needs the store closes the socket with 1013."""
    await lab.open_session(browser, user="alice")
    connection = await socket(Writes)
    lab.store.fail["find"] = StoreUnavailable("find")

    await connection.write_message("write")

    assert await closed(connection) == (1013, "store_down")


@pytest.mark.gen_test
async def test_too_many_messages_close_the_socket(lab: Lab, browser: Browser, socket: Any) -> None:  # J6
    """Twice the rate at once is allowed, and no more."""
    await lab.open_session(browser, user="alice")
    connection = await socket(type("Slow", (Echo,), {"max_messages_per_s": 2.0}))

    answers = [await said(connection) for _ in range(4)]
    await connection.write_message("one more")

    assert answers == ["alice hello"] * 4
    assert await closed(connection) == (1008, "too_many_messages")


@pytest.mark.gen_test
async def test_too_large_message_closes_the_socket(lab: Lab, browser: Browser, socket: Any) -> None:  # J6
    """64 KiB are allowed, and no more."""
    await lab.open_session(browser, user="alice")
    connection = await socket(Echo)

    assert (await said(connection, "x" * 65536)).startswith("alice x")
    await connection.write_message("x" * 65537)

    assert (await closed(connection))[0] == 1009


@pytest.mark.parametrize(("activity", "touches"), [("none", 0), ("messages", 1)])
@pytest.mark.gen_test
async def test_activity_is_the_choice_of_the_class(
    lab: Lab, browser: Browser, socket: Any, activity: str, touches: int
) -> None:  # J4
    """Messages extend the session if the class says so, at most once a minute; a handshake does."""
    await lab.open_session(browser, user="alice")
    connection = await socket(type("Active", (Echo,), {"socket_activity": activity}))
    await said(connection)
    before = lab.store.calls["apply"]
    lab.clock.advance(61)

    for _ in range(5):
        await said(connection)
    await lab.sessions.drain()

    assert lab.store.calls["apply"] - before == touches
    connection.close()


@pytest.mark.gen_test
async def test_touch_that_finds_the_session_gone_closes(lab: Lab, browser: Browser, socket: Any) -> None:
    """Where the announcement was lost, the next activity finds out."""
    sid = await lab.open_session(browser, user="alice")
    connection = await socket(type("Active", (Echo,), {"socket_activity": "messages"}))
    await said(connection)
    lab.clock.advance(61)
    lab.inner._listeners._queues.clear()
    await lab.end(sid.handle)

    await connection.write_message("hello")

    assert await closed(connection) == (4401, "signed_out")

"""Every way in which a socket ends with its session, as its client sees it, and who is refused one."""

from __future__ import annotations

import asyncio
import socket as sockets
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError
from tornado.websocket import WebSocketClosedError

from stormcellar import Lifetime
from stormcellar.sessions.live.watch import Rechecks
from stormcellar.stores import StoreUnavailable
from tests.support.browser import Browser
from tests.support.core import AccountTimes
from tests.support.embedding import Lab
from tests.web.test_socket_mixin import SOON_S, Echo, closed, said, socket

__all__ = ["socket"]  # fixtures


@pytest.fixture
def users() -> dict[str, int]:
    """When the sign-ins of each user begin to count."""
    return {"alice": 0}


@pytest.fixture
def lab(users: dict[str, int], io_loop: Any) -> Any:
    """An application with accounts, whose users have one session, on a store that is given up soon."""
    lab = Lab(
        rechecks=Rechecks(every_s=0.2, patience_s=1.0),
        accounts=AccountTimes(users),
        lifetime=Lifetime(max_per_user=1),
    )
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


@pytest.mark.gen_test
async def test_limit_of_sessions(lab: Lab, browser: Browser, socket: Any) -> None:  # J3
    """A sign-in elsewhere that ends the oldest session signs its sockets out."""
    await lab.open_session(browser, user="alice")
    connection = await socket(Echo)
    await said(connection)
    lab.clock.advance(1)
    await lab.open_session(browser, user="alice")

    assert await closed(connection) == (4401, "signed_out")


@pytest.mark.gen_test
async def test_sign_in_of_the_same_user(lab: Lab, browser: Browser, socket: Any) -> None:  # J5
    """The browser has a new session ID, so its old sockets are closed."""
    sid = await lab.open_session(browser, user="alice")
    connection = await socket(Echo)
    await said(connection)
    lab.clock.advance(1)
    await lab.sign_in_elsewhere(sid, "alice")

    assert await closed(connection) == (4401, "replaced")


@pytest.mark.gen_test
async def test_expiry_without_activity(lab: Lab, browser: Browser, socket: Any) -> None:  # J3 J4
    """Although the client goes on to send messages."""
    await lab.open_session(browser, user="alice")
    connection = await socket(Echo)
    await said(connection)
    lab.clock.advance(lab.sessions.lifetime.idle_s)
    await connection.write_message("I am here")

    assert await closed(connection) == (4401, "expired")


@pytest.mark.gen_test
async def test_disabled_account(
    lab: Lab, browser: Browser, socket: Any, users: dict[str, int]
) -> None:  # C10 J3
    """The next check finds it, with a directory that does not call `check_accounts`."""
    await lab.open_session(browser, user="alice")
    connection = await socket(Echo)
    await said(connection)
    del users["alice"]

    assert await closed(connection) == (4401, "account")


@pytest.mark.gen_test
async def test_store_that_stays_down(lab: Lab, browser: Browser, socket: Any) -> None:
    """The socket works for the time of the patience, and is closed with 1013 then."""
    await lab.open_session(browser, user="alice")
    connection = await socket(Echo)
    await said(connection)
    lab.store.fail["states"] = StoreUnavailable("states")
    await asyncio.sleep(0.3)

    assert await said(connection) == "alice hello"
    assert await closed(connection) == (1013, "store_down")


@pytest.mark.gen_test
async def test_handshake_of_a_session_that_is_over(lab: Lab, browser: Browser, socket: Any) -> None:  # J1 J2
    """401: whoever was signed out gets no other socket with the old cookie."""
    sid = await lab.open_session(browser, user="alice")
    await lab.end(sid.handle)
    with pytest.raises(HTTPClientError) as caught:
        await socket(Echo)

    assert caught.value.code == 401


@pytest.mark.gen_test
async def test_handshake_while_the_store_is_down(lab: Lab, browser: Browser, socket: Any) -> None:  # J1 J2
    """503: nobody gets a socket without a session that is known to be live."""
    await lab.open_session(browser, user="alice")
    lab.store.fail["load"] = StoreUnavailable("load")
    with pytest.raises(HTTPClientError) as caught:
        await socket(Echo)

    assert caught.value.code == 503


@pytest.mark.gen_test
async def test_close_frame_does_not_wait(lab: Lab, browser: Browser, socket: Any) -> None:
    """Nagle's algorithm is off by then: with it, the frame waits 40 ms after a message for the client."""
    no_delay: list[int] = []

    class Closes(Echo):
        def close(self, code: int | None = None, reason: str | None = None) -> None:
            connection = self.ws_connection
            assert connection is not None
            no_delay.append(connection.stream.socket.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY))
            super().close(code, reason)

    sid = await lab.open_session(browser, user="alice")
    connection = await socket(Closes)
    await said(connection)
    await lab.end(sid.handle)

    assert await closed(connection) == (4401, "signed_out")
    assert no_delay == [1]


@pytest.mark.gen_test
async def test_socket_that_the_application_closes_first(
    lab: Lab, browser: Browser, socket: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its code stands, and the end of the session causes no error while the client has not answered."""

    class Leaves(Echo):
        def on_message(self, message: str | bytes) -> None:
            self.close(4000, "bye")
            self._stormcellar.socket._stop()

    await lab.open_session(browser, user="alice")
    connection = await socket(Leaves)
    await connection.write_message("hello")

    assert await closed(connection) == (4000, "bye")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.gen_test
async def test_handler_that_answers_too_late(
    lab: Lab, browser: Browser, socket: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The session ended while a message was handled: it gets no answer, and no error is logged."""
    answers, raised = asyncio.Event(), asyncio.Event()

    class Slow(Echo):
        async def on_message(self, message: str | bytes) -> None:
            await answers.wait()
            try:
                await self.write_message("too late")
            except WebSocketClosedError:
                raised.set()
                raise

    sid = await lab.open_session(browser, user="alice")
    connection = await socket(Slow)
    await connection.write_message("hello")
    await lab.end(sid.handle)
    ending = asyncio.ensure_future(closed(connection))
    await asyncio.sleep(0.1)
    answers.set()

    assert await ending == (4401, "signed_out")
    await asyncio.wait_for(raised.wait(), SOON_S)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []

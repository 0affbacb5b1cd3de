"""`examples/chat.py` in two real browsers over TLS: who is signed out is out of the room at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import RequestHandler

from stormcellar import SessionManager, SessionMixin
from stormcellar.stores.memory import MemoryStore
from tests.support.certificates import Authority
from tests.support.chromium import Chromium
from tests.web.test_chat import PASSWORD, chat

WAIT_S = 20
REPORTS = """
socket.addEventListener("close", (event) => {
  sessionStorage.closed = event.code + " " + event.reason;
  socket.send("too late");
});
"""
CODE_OF_A_NEW_SOCKET = """
const socket = new WebSocket(location.origin.replace("http", "ws") + "/socket");
socket.onclose = (event) => arguments[0](event.code);
socket.onopen = () => arguments[0]("open");
"""


class Others(SessionMixin, RequestHandler):
    """Signs out the other browsers of the user."""

    async def get(self) -> None:
        """End their sessions."""
        await self.sessions.revoke_others(self.current_user, than=str(self.session.handle))


class Room:
    """The example on a port with TLS, in a thread of its own; a context manager."""

    def __init__(self, directory: Path) -> None:
        self._files = Authority(directory).issue()
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> str:
        """Return the base URL."""
        self._thread.start()
        assert self._is_ready.wait(WAIT_S)
        return f"https://127.0.0.1:{self._port}"

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_S)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        sessions = SessionManager(MemoryStore(), secrets=[bytes(range(32))], secure=True)
        app = chat.make_app(sessions, password=PASSWORD)
        app.add_handlers(".*", [("/others", Others)])
        tls = {"certfile": str(self._files.certificate), "keyfile": str(self._files.key)}
        http = HTTPServer(app, ssl_options=tls)
        sockets = bind_sockets(0, "127.0.0.1")
        http.add_sockets(sockets)
        self._port = sockets[0].getsockname()[1]
        self._is_ready.set()
        await self._stop.wait()
        http.stop()
        await sessions.aclose()
        await http.close_all_connections()


class Member(Chromium):
    """A browser, and what somebody in the room does with it."""

    def join(self) -> None:
        """Sign in as alice, and wait until the room is open."""
        self.fill_in(name="alice", password=PASSWORD)
        self.press("Sign in")
        self.wait_until_connected()

    def wait_until_connected(self) -> None:
        """Wait until the page says so."""
        self.wait(lambda: self.find("#status").text == "Connected.")

    def say(self, text: str) -> None:
        """Send a message."""
        self.fill_in(text=text)
        self.find_labelled("Send").click()

    def wait_for(self, *texts: str) -> None:
        """Wait until these are the messages on the page."""
        self.wait(lambda: self.find("#messages").text.split("\n") == [f"alice: {text}" for text in texts])

    def wait_until_out(self) -> None:
        """Wait until the page asks for the password."""
        self.wait(lambda: self.heading == "Sign in to chat")


@pytest.fixture
def members(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Member, Member]]:
    """Two browsers of alice in the room."""
    # Tornado keeps one template loader for each folder, whatever the application.
    monkeypatch.setattr(RequestHandler, "_template_loaders", {})
    with (
        Room(tmp_path_factory.mktemp("room")) as base,
        Member(tmp_path_factory.mktemp("profile"), base) as first,
        Member(tmp_path_factory.mktemp("profile"), base) as second,
    ):
        for each in (first, second):
            each.open("/")
            each.join()
        yield first, second


def test_signed_out_from_another_browser(members: tuple[Member, Member]) -> None:  # J1 J2 J3 J8
    """The socket closes with 4401, and no socket is opened until the user has signed in again."""
    first, second = members
    first.say("hello")
    second.wait_for("hello")
    second.script(REPORTS)

    first.driver.execute_async_script("fetch('/others').then(arguments[0])")
    second.wait_until_out()

    assert second.script("return sessionStorage.closed") == "4401 signed_out"
    assert second.driver.execute_async_script(CODE_OF_A_NEW_SOCKET) == 1006
    second.join()
    second.say("back")
    second.wait_for("back")
    first.wait_for("hello", "back")


def test_signed_out_in_another_tab(members: tuple[Member, Member]) -> None:  # J3
    """The other tab of the browser leaves the room; another browser of the user stays in it."""
    first, second = members
    room = second.driver.current_window_handle
    second.driver.switch_to.new_window("tab")
    second.open("/")
    second.wait_until_connected()

    second.press("Sign out")
    second.driver.switch_to.window(room)
    second.wait_until_out()

    first.say("still here")
    first.wait_for("still here")

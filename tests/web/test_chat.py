"""`examples/chat.py` does what it shows: a room that one leaves with the end of the session."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.ioloop import IOLoop
from tornado.web import Application, RequestHandler
from tornado.websocket import websocket_connect

from stormcellar import SessionManager
from stormcellar.testing import Client
from tests.support.browser import Browser
from tests.web.test_embed import started, stopped

EXAMPLES = Path(__file__).parents[2] / "examples"
PASSWORD = "open sesame"
SOON_S = 5.0


def _load() -> ModuleType:
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module("chat")
    finally:
        sys.path.remove(str(EXAMPLES))


chat = _load()


@pytest.fixture
def sessions(io_loop: IOLoop) -> Iterator[SessionManager]:
    """The example's sessions, on its own store."""
    sessions, _ = chat.embed.parse([])
    yield sessions
    io_loop.run_sync(sessions.aclose)


@pytest.fixture
def app(sessions: SessionManager, monkeypatch: pytest.MonkeyPatch) -> Application:
    """The example. Tornado keeps one template loader for each folder, whatever the application."""
    monkeypatch.setattr(RequestHandler, "_template_loaders", {})
    made: Application = chat.make_app(sessions, password=PASSWORD)
    return made


async def connected(browser: Browser, *, sends_origin: bool = True) -> Any:
    """Return a socket with the cookies of *browser*."""
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}
    if sends_origin:
        headers["Origin"] = browser.base
    url = browser.base.replace("http", "ws") + "/socket"
    return await websocket_connect(HTTPRequest(url, headers=headers))


@pytest.mark.gen_test
async def test_room(client: Client) -> None:
    """Everybody hears each message; who signs out is out of the room, and gets in again only signed in."""
    async with client.another() as other:
        await client.submit_form("/", {"name": "<Alice>", "password": PASSWORD})
        await other.force_login("bob")
        async with client.websocket_connect("/socket") as alice, other.websocket_connect("/socket") as bob:
            await bob.write_message("hello" + "x" * 1000)
            heard = [await each.read_json() for each in (alice, bob)]
            asked = (await client.get("/who")).code
            await client.submit_form("/")

            assert heard == [{"text": "bob: hello" + "x" * 495}] * 2
            assert await alice.closed() == (4401, "signed_out")
            assert (asked, (await client.get("/who")).code) == (204, 401)
            with pytest.raises(HTTPClientError, match="401"):
                await client.websocket_connect("/socket").__aenter__()
            await bob.write_message("bye")
            assert await bob.read_json() == {"text": "bob: bye"}


@pytest.mark.parametrize("flags", [(), ("--allow-originless",)])
@pytest.mark.gen_test
async def test_as_a_program(http_client: Any, flags: tuple[str, ...]) -> None:
    """A program without an Origin gets a socket with the flag alone; a stop closes the sockets with 1001."""
    line, process = await started(*flags, example=EXAMPLES / "chat.py")
    browser = Browser(http_client, line.split()[0])
    password = line.split()[-1].removesuffix(")")
    await browser.submit("/", "/login", name="alice", password=password)
    sockets = [await connected(browser)]
    if flags:
        sockets.append(await connected(browser, sends_origin=False))
    else:
        with pytest.raises(HTTPClientError, match="403"):
            await connected(browser, sends_origin=False)

    status, errors = await stopped(process)
    ends = [await asyncio.wait_for(each.read_message(), SOON_S) for each in sockets]
    for each in sockets:
        each.close()

    assert (ends, {each.close_code for each in sockets}) == ([None] * len(sockets), {1001})
    assert (status, b"Traceback" in errors) == (0, False)


def test_help_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Not that of the example whose arguments it takes."""
    with pytest.raises(SystemExit):
        chat.embed.parse(["--help"], chat.__doc__, "--allow-originless")

    assert "A chat room" in capsys.readouterr().out

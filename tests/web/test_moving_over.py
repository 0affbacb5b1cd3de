"""The chapter on Tornado's chat demos in docs/embedding.md: its handlers work as they stand there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tornado.locks
import tornado.web
import tornado.websocket
from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

import stormcellar
from stormcellar.sessions.live.watch import Rechecks
from tests.support.browser import Browser
from tests.support.embedding import JSON, Lab
from tests.web.test_chat import chat

DOCS = Path(__file__).parents[2] / "docs"
SOON_S = 5.0
# What the code of the page imports.
NAMES = {
    **{"asyncio": asyncio, "json": json, "suppress": contextlib.suppress, "tornado": tornado},
    **{name: getattr(tornado.web, name) for name in ("HTTPError", "RequestHandler")},
    **{name: getattr(tornado.websocket, name) for name in ("WebSocketClosedError", "WebSocketHandler")},
    **{name: getattr(stormcellar, name) for name in ("SessionMixin", "SessionSocketMixin")},
}


class MessageBuffer:
    """The buffer of the demo: messages, and a condition that tells of new ones."""

    def __init__(self) -> None:
        self.cond = tornado.locks.Condition()
        self.messages: list[str] = []

    def get_messages_since(self, cursor: str | None) -> list[str]:
        """Return the messages after the first *cursor* ones."""
        return self.messages[int(cursor or 0) :]

    def add_message(self, message: str) -> None:
        """Add one, and tell those who wait."""
        self.messages.append(message)
        self.cond.notify_all()


def snippets(language: str) -> list[str]:
    """Return the code blocks of the page."""
    page = (DOCS / "embedding.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.M | re.S)


@pytest.fixture
def buffer() -> MessageBuffer:
    """An empty one."""
    return MessageBuffer()


@pytest.fixture
def lab(io_loop: IOLoop, buffer: MessageBuffer) -> Iterator[Lab]:
    """An application with the handlers of the page."""
    lab = Lab(rechecks=Rechecks(every_s=3600.0))
    names: dict[str, Any] = {**NAMES, "buffer": buffer}
    for source in snippets("python"):
        if source.startswith(("class ChatSocketHandler", "class MessageUpdatesHandler")):
            exec(compile(source, "embedding.md", "exec"), names)
    for path, name in (("/socket", "ChatSocketHandler"), ("/updates", "MessageUpdatesHandler")):
        lab.app.add_handlers(".*", [(path, names[name])])
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


def cookie(browser: Browser) -> str:
    """Return the cookies of *browser* as one header."""
    return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())


async def waits(buffer: MessageBuffer) -> None:
    """Wait until a request waits for messages."""
    async with asyncio.timeout(SOON_S):
        while not buffer.cond._waiters:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.mark.gen_test
async def test_websocket_demo(lab: Lab, browser: Browser, http_port: int) -> None:
    """Messages go to everybody; who signs out is out, and the others stay."""
    sockets, sessions = [], []
    for user in ("alice", "bob"):
        sessions.append(await lab.open_session(browser, user=user))
        headers = {"Cookie": cookie(browser), "Origin": f"http://127.0.0.1:{http_port}"}
        sockets.append(
            await websocket_connect(HTTPRequest(f"ws://127.0.0.1:{http_port}/socket", headers=headers))
        )
    await sockets[0].write_message(json.dumps({"body": "hello"}))
    heard = [await asyncio.wait_for(each.read_message(), SOON_S) for each in sockets]
    await lab.end(sessions[0].handle)
    ended = await asyncio.wait_for(sockets[0].read_message(), SOON_S)
    await sockets[1].write_message(json.dumps({"body": "bye"}))
    last = await asyncio.wait_for(sockets[1].read_message(), SOON_S)
    for each in sockets:
        each.close()

    assert [json.loads(str(each)) for each in heard] == [{"user": "alice", "body": "hello"}] * 2
    assert (ended, sockets[0].close_code) == (None, 4401)
    assert json.loads(str(last)) == {"user": "bob", "body": "bye"}


async def poll(browser: Browser, cursor: int) -> HTTPResponse:
    """Ask for the messages after *cursor*."""
    return await browser.fetch("POST", f"/updates?cursor={cursor}", body=b"{}", headers=JSON)


@pytest.mark.gen_test
async def test_long_polling_demo(lab: Lab, browser: Browser, http_server: Any, buffer: MessageBuffer) -> None:
    """A poll answers with the next messages; one that waits at the sign-out is answered 401."""
    sid = await lab.open_session(browser, user="alice")
    polling = asyncio.ensure_future(poll(browser, 0))
    await waits(buffer)
    buffer.add_message("hello")
    first = await asyncio.wait_for(polling, SOON_S)
    polling = asyncio.ensure_future(poll(browser, 1))
    await waits(buffer)
    await lab.end(sid.handle)
    second = await asyncio.wait_for(polling, SOON_S)
    buffer.add_message("secret")

    assert json.loads(first.body) == {"messages": ["hello"]}
    assert (second.code, b"secret" in second.body) == (401, False)


@pytest.mark.gen_test
async def test_long_polling_client_that_goes(
    lab: Lab, browser: Browser, http_server: Any, http_port: int, buffer: MessageBuffer, caplog: Any
) -> None:
    """Nothing waits for it any more, and nothing is logged."""
    await lab.open_session(browser, user="alice")
    _, writer = await asyncio.open_connection("127.0.0.1", http_port)
    head = ["POST /updates HTTP/1.1", "Host: localhost", f"Cookie: {cookie(browser)}", "Content-Length: 2"]
    writer.write("\r\n".join([*head, "Content-Type: application/json", "", "{}"]).encode())
    await waits(buffer)
    writer.transport.abort()
    async with asyncio.timeout(SOON_S):
        while len(lab.sessions.watch):  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    assert [each.getMessage() for each in caplog.records] == []


def test_script_is_that_of_the_example() -> None:
    """Every line of the script that connects again is in `examples/chat.py`."""
    script = next(each for each in snippets("js") if "WebSocket" in each)
    example = {line.strip() for line in chat.PAGE.splitlines()}

    assert {line.strip() for line in script.splitlines()} <= example

"""Sockets whose announcement was lost: the next use of the session finds its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tornado.websocket import WebSocketHandler

from stormcellar import SessionSocketMixin
from stormcellar.errors import SessionEnded
from tests.support.browser import Browser
from tests.support.embedding import Lab
from tests.web.test_socket_mixin import SOON_S, Echo, closed, lab, said, socket

__all__ = ["lab", "socket"]  # fixtures


class Loads(SessionSocketMixin, WebSocketHandler):
    """Uses the session as a message says."""

    async def on_message(self, message: str | bytes) -> None:
        """Answer after that."""
        try:
            if message == "raise":
                raise SessionEnded
            async with self.fresh_session():
                pass
        except SessionEnded:
            if message != "catch":
                raise
        self.write_message("done")


@pytest.mark.parametrize("message", ["raise", "catch", "leave"])
@pytest.mark.gen_test
async def test_use_of_the_session_finds_its_end(
    lab: Lab, browser: Browser, socket: Any, message: str
) -> None:  # J3 J7
    """Whether the handler lets the error pass, raises it itself, or catches it."""
    sid = await lab.open_session(browser, user="alice")
    connection = await socket(Loads)
    await said(connection, "hello")
    lab.inner._listeners._queues.clear()  # type: ignore[attr-defined]
    await lab.end(sid.handle)
    await connection.write_message(message)

    assert await closed(connection) == (4401, "signed_out")


@pytest.mark.gen_test
async def test_no_fresh_session_after_the_end(lab: Lab, browser: Browser, socket: Any) -> None:  # J7
    """A message that was handled while the server began to stop writes nothing any more."""
    arrived, goes_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Late(SessionSocketMixin, WebSocketHandler):
        async def on_message(self, message: str | bytes) -> None:
            arrived.set()
            await goes_on.wait()
            try:
                async with self.fresh_session() as session:
                    session["late"] = True
            except SessionEnded:
                ended.set()

    await lab.open_session(browser, user="alice", cart=[1])
    connection = await socket(Late)
    await connection.write_message("hello")
    await asyncio.wait_for(arrived.wait(), SOON_S)
    await lab.sessions.watch.aclose()
    goes_on.set()

    assert await closed(connection) == (1001, "stopped")
    await asyncio.wait_for(ended.wait(), SOON_S)
    assert await lab.data() == {"cart": [1]}


@pytest.mark.gen_test
async def test_touch_in_progress_is_not_repeated(lab: Lab, browser: Browser, socket: Any) -> None:  # J4
    """While the store has not answered, further messages cause no further calls."""
    await lab.open_session(browser, user="alice")
    connection = await socket(type("Active", (Echo,), {"socket_activity": "messages"}))
    await said(connection)
    await lab.sessions.drain()
    lab.clock.advance(61)
    before, gate = lab.store.calls["apply"], lab.store.gate("apply")
    for _ in range(3):
        await said(connection)
    calls = lab.store.calls["apply"] - before
    gate.open()

    assert calls == 1
    connection.close()

"""`SessionStreamMixin` when the session, the client or the server goes before the first event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stormcellar import SessionStreamMixin
from tests.support.browser import Browser
from tests.support.embedding import Lab, errors
from tests.web.test_stream_mixin import Feed, Reading, lab, left

__all__ = ["lab"]  # a fixture


async def visit_and_stream(self: Any) -> None:
    """Change the session, then stream."""
    self.session["visited"] = True
    await Feed.get(self)


def after_the_head(do: Callable[[], Awaitable[None]]) -> Any:
    """Return a `flush` that runs *do* when it has sent the head of the response."""

    async def flush_head(sent: Awaitable[None]) -> None:
        await sent
        await do()

    def flush(self: Any, include_footers: bool = False) -> Any:
        is_head = not self._headers_written
        sent = SessionStreamMixin.flush(self, include_footers)
        return asyncio.ensure_future(flush_head(sent)) if is_head else sent

    return flush


@pytest.mark.gen_test
async def test_session_that_ends_during_the_save(
    lab: Lab, browser: Browser, http_server: Any, http_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no stream, and the response says so."""
    sid = await lab.open_session(browser, user="alice")
    reading = Reading(lab, browser, http_port, get=visit_and_stream)
    gate = lab.store.gate("apply")
    opening = asyncio.ensure_future(reading.open())
    await gate.reached()
    await lab.end(sid.handle)
    await asyncio.sleep(0.05)  # until the watch has noticed, if somebody holds it
    gate.open()
    await opening

    assert "409" in reading.head.splitlines()[0]
    await left(reading)
    assert (len(lab.sessions.watch), errors(caplog)) == (0, [])
    reading.close()


@pytest.mark.gen_test
async def test_session_that_ends_before_the_first_event(
    lab: Lab, browser: Browser, http_server: Any, http_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The stream ends as one whose session ends later."""
    sid = await lab.open_session(browser, user="alice")

    async def end() -> None:
        await lab.end(sid.handle)
        await asyncio.sleep(0.05)  # until the watch has noticed, if somebody holds it

    reading = Reading(lab, browser, http_port, flush=after_the_head(end))
    await reading.open()

    assert await reading.next() == 'event: session_over\ndata: {"reason": "signed_out"}\n\n'
    assert await reading.next() == ""
    assert errors(caplog) == []
    reading.close()


@pytest.mark.gen_test
async def test_client_that_goes_before_the_stream(
    lab: Lab, browser: Browser, http_server: Any, http_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A page that is left while its stream is being opened is no error."""
    await lab.open_session(browser, user="alice")
    reading = Reading(lab, browser, http_port)
    gate = lab.store.gate("load")
    opening = asyncio.ensure_future(reading.open())
    await gate.reached()
    reading.close()
    gate.open()
    await asyncio.gather(opening, return_exceptions=True)

    await left(reading)
    assert (len(lab.sessions.watch), errors(caplog)) == (0, [])


@pytest.mark.gen_test
async def test_client_that_goes_before_the_first_event(
    lab: Lab, browser: Browser, http_server: Any, http_port: int
) -> None:
    """While the head of the response is sent: the block is cancelled all the same."""
    await lab.open_session(browser, user="alice")

    async def leave() -> None:
        reading.close()
        await asyncio.sleep(0.05)  # until Tornado has called on_connection_close()

    reading = Reading(lab, browser, http_port, flush=after_the_head(leave))
    await asyncio.gather(reading.open(), return_exceptions=True)

    await left(reading)
    assert len(lab.sessions.watch) == 0

"""`SessionStreamMixin` and `while_session_lives`: long responses end with the session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop
from tornado.web import RequestHandler

from stormcellar import SessionMixin, SessionStreamMixin
from stormcellar.sessions.live.watch import Rechecks
from tests.support.browser import Browser
from tests.support.embedding import Lab

SOON_S = 5.0


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """An application whose sessions are on a steered store."""
    lab = Lab(rechecks=Rechecks(every_s=3600.0))
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


class Feed(SessionStreamMixin, RequestHandler):
    """Sends what a test puts into `items`."""

    items: asyncio.Queue[Any]
    ended: list[str]

    async def get(self) -> None:
        """Stream."""
        try:
            async with self.event_stream() as send:
                while True:
                    item, kind = await self.items.get()
                    await send(item, event=kind)
        finally:
            self.ended.append("left")


class Reading:
    """A stream that is being read."""

    def __init__(self, lab: Lab, browser: Browser, port: int, **attributes: Any) -> None:
        self.items: asyncio.Queue[Any] = asyncio.Queue()
        self.ended: list[str] = []
        members = {"items": self.items, "ended": self.ended, **attributes}
        lab.app.add_handlers(".*", [("/feed", type("Feed", (Feed,), members))])
        self._browser, self._port = browser, port
        self.head = ""

    async def open(self) -> None:
        """Send the request and read the head of the response."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        cookies = "; ".join(f"{name}={value}" for name, value in self._browser.cookies.items())
        self._writer.write(f"GET /feed HTTP/1.1\r\nHost: localhost\r\nCookie: {cookies}\r\n\r\n".encode())
        self.head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), SOON_S)).decode()

    async def next(self) -> str:
        """Return the next event, or an empty string at the end of the response."""
        size = int(await asyncio.wait_for(self._reader.readline(), SOON_S), 16)
        chunk = await self._reader.readexactly(size + 2)
        return chunk[:-2].decode()

    def close(self) -> None:
        """Hang up."""
        self._writer.transport.abort()


async def left(reading: Reading) -> None:
    """Wait until the block of the handler has ended."""
    async with asyncio.timeout(SOON_S):
        while not reading.ended:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.gen_test
async def test_events_are_sent_until_the_session_ends(
    lab: Lab, browser: Browser, http_server: Any, http_port: int
) -> None:
    """The block is cancelled at the end of the session, and a last event says why."""
    sid = await lab.open_session(browser, user="alice")
    reading = Reading(lab, browser, http_port)
    await reading.open()
    reading.items.put_nowait(({"n": 1}, "item"))
    reading.items.put_nowait(("a\nb", None))
    events = [await reading.next() for _ in range(2)]

    await lab.end(sid.handle)

    assert events == ['event: item\ndata: {"n": 1}\n\n', 'data: "a\\nb"\n\n']
    assert await reading.next() == 'event: session_over\ndata: {"reason": "signed_out"}\n\n'
    assert await reading.next() == ""
    await left(reading)
    assert len(lab.sessions.watch) == 0
    assert "Content-Type: text/event-stream\r\n" in reading.head
    assert "Cache-Control: no-store\r\n" in reading.head
    reading.close()


@pytest.mark.gen_test
async def test_client_that_goes_ends_the_block(
    lab: Lab, browser: Browser, http_server: Any, http_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of the stream is left, and nothing is logged as an error."""
    await lab.open_session(browser, user="alice")
    reading = Reading(lab, browser, http_port)
    await reading.open()

    reading.close()
    await left(reading)

    assert len(lab.sessions.watch) == 0
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.gen_test
async def test_server_that_stops_ends_the_stream(
    lab: Lab, browser: Browser, http_server: Any, http_port: int
) -> None:
    """Without a last event: the browser connects again, to another server."""
    await lab.open_session(browser, user="alice")
    reading = Reading(lab, browser, http_port)
    await reading.open()

    await lab.sessions.watch.aclose()

    assert await reading.next() == ""
    reading.close()


@pytest.mark.gen_test
async def test_heartbeat_keeps_the_connection(
    lab: Lab, browser: Browser, http_server: Any, http_port: int
) -> None:
    """A comment is sent where there is no event."""
    await lab.open_session(browser, user="alice")
    reading = Reading(lab, browser, http_port, heartbeat_s=0.01)
    await reading.open()

    assert await reading.next() == ":\n\n"
    reading.close()
    await left(reading)


@pytest.mark.gen_test
async def test_heartbeat_waits_for_a_client_that_does_not_read(
    lab: Lab, browser: Browser, http_server: Any, http_port: int
) -> None:
    """An event that is sent slowly is sent whole, and the next one follows it."""
    await lab.open_session(browser, user="alice")
    reading = Reading(lab, browser, http_port, heartbeat_s=0.01)
    await reading.open()
    large = "x" * (16 << 20)
    reading.items.put_nowait((large, None))
    reading.items.put_nowait(("next", None))
    await asyncio.sleep(0.1)

    found = []
    while len(found) < 2:
        event = await reading.next()
        if event != ":\n\n":
            found.append(len(event))

    assert found == [len(f'data: "{text}"\n\n') for text in (large, "next")]
    reading.close()


@pytest.mark.parametrize(
    ("user", "attributes", "status"),
    [(None, {}, 401), ("alice", {"max_streams_per_session": 0}, 429), (None, {"stream_visitors": True}, 200)],
)
@pytest.mark.gen_test
async def test_who_gets_a_stream(
    lab: Lab,
    browser: Browser,
    http_server: Any,
    http_port: int,
    user: str | None,
    attributes: Any,
    status: int,
) -> None:
    """A user, a visitor by choice, and so many streams at once."""
    await lab.open_session(browser, user=user, cart=[1])
    reading = Reading(lab, browser, http_port, **attributes)
    await reading.open()

    assert reading.head.startswith(f"HTTP/1.1 {status} ")
    reading.close()


@pytest.mark.gen_test
async def test_what_the_handler_wrote_before_is_saved(
    lab: Lab, browser: Browser, http_server: Any, http_port: int
) -> None:
    """With the first byte of the stream, which may go on for hours."""

    async def get(self: Any) -> None:
        self.session["opened"] = 1
        async with self.event_stream():
            await self.items.get()

    await lab.open_session(browser, user="alice")
    reading = Reading(lab, browser, http_port, get=get)
    await reading.open()

    assert await lab.data() == {"opened": 1}
    reading.close()


@pytest.mark.gen_test
async def test_request_is_no_activity(lab: Lab, browser: Browser, http_server: Any, http_port: int) -> None:
    """A browser repeats it by itself, so it does not extend the session."""
    await lab.open_session(browser, user="alice")
    lab.clock.advance(61)
    reading = Reading(lab, browser, http_port)
    await reading.open()
    await lab.sessions.drain()

    assert lab.store.calls["apply"] == 0
    reading.close()


@pytest.mark.gen_test
async def test_line_break_in_an_event_type_is_refused(
    lab: Lab, browser: Browser, http_server: Any, http_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It would begin another field, or another event."""
    await lab.open_session(browser, user="alice")
    reading = Reading(lab, browser, http_port)
    await reading.open()
    reading.items.put_nowait((1, "a\ndata: 2"))
    await left(reading)

    assert "must not have a line break" in caplog.text
    reading.close()


# --- long handlers ---


@pytest.mark.gen_test
async def test_long_handler_ends_with_the_session(lab: Lab, browser: Browser, http_server: Any) -> None:
    """The block is cancelled, what follows it runs, and `end` says why."""
    begun = asyncio.Event()

    async def get(self: Any) -> None:
        async with self.while_session_lives() as watched:
            begun.set()
            await asyncio.sleep(60)
        self.write({"end": watched.end.value})

    sid = await lab.open_session(browser, user="alice")
    lab.serve("/", bases=(SessionMixin, RequestHandler), get=get)
    answer = asyncio.ensure_future(browser.fetch("GET", "/"))
    await asyncio.wait_for(begun.wait(), SOON_S)

    await lab.end(sid.handle)

    assert json.loads((await answer).body) == {"end": "signed_out"}


@pytest.mark.gen_test
async def test_long_handler_that_is_done_first(lab: Lab, browser: Browser, http_server: Any) -> None:
    """Nothing is cancelled and nothing watched after the block; a time-out of its own goes on."""

    async def get(self: Any) -> None:
        with pytest.raises(TimeoutError):
            async with self.while_session_lives(), asyncio.timeout(0.01):
                await asyncio.sleep(60)
        async with self.while_session_lives() as watched:
            pass
        self.write({"end": watched.end})

    await lab.open_session(browser, user="alice")
    lab.serve("/", bases=(SessionMixin, RequestHandler), get=get)

    answer = await browser.fetch("GET", "/")

    assert json.loads(answer.body) == {"end": None}
    assert len(lab.sessions.watch) == 0


@pytest.mark.gen_test
async def test_visitor_without_a_session_has_none_to_watch(
    lab: Lab, browser: Browser, http_server: Any
) -> None:
    """SessionEnded: 409."""

    async def get(self: Any) -> None:
        async with self.while_session_lives():
            self.write("never")

    lab.serve("/", bases=(SessionMixin, RequestHandler), get=get)

    assert (await browser.fetch("GET", "/")).code == 409

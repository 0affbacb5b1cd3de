"""With `SessionMixin` a handler behaves as without: the same body runs on a stock handler and is compared."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any

import pytest
from tornado.ioloop import IOLoop
from tornado.template import DictLoader
from tornado.web import (
    Finish,
    GZipContentEncoding,
    HTTPError,
    RequestHandler,
    stream_request_body,
)

from stormcellar import SessionMixin
from tests.support.embedding import Lab, Ping, Reply, Wire

PAGE = "<p>" + "the page " * 300 + "</p>"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Watched(RequestHandler):
    """Tells the test what ran."""

    def saw(self, event: str) -> None:
        """Remember *event*."""
        self.settings["events"].append(event)

    def on_finish(self) -> None:
        """Remember that the request ended."""
        self.saw("on_finish")


class Stock(Watched):
    """A handler of Tornado's own, with what the bodies below call."""

    async def prepare(self) -> None:
        """Load nothing."""

    def change(self) -> None:
        """Change nothing."""

    async def settle(self) -> None:
        """Save nothing."""


class Quiet(SessionMixin, Stock):
    """The mixin, with nothing to save."""


class Saving(SessionMixin, Stock):
    """The mixin, with something to save."""

    def change(self) -> None:
        """Change the session."""
        self.session["n"] = 1

    async def settle(self) -> None:
        """Save the session."""
        await self.session.commit()


Body = Callable[[type[Stock]], type[RequestHandler]]


@dataclass(frozen=True)
class Case:
    """A handler's body, written against any base, and the requests of one connection."""

    body: Body
    requests: tuple[bytes, ...] = (GET,)
    saves: bool = True
    is_refusing_a_body: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.body.__name__.strip("_")


CASES: list[Case] = []


def case(
    *requests: bytes, saves: bool = True, is_refusing_a_body: bool = False, **settings: Any
) -> Callable[[Body], Body]:
    """Add a case; *saves* says whether the response is one that waits for the store."""

    def add(body: Body) -> Body:
        CASES.append(Case(body, requests or (GET,), saves, is_refusing_a_body, settings))
        return body

    return add


def _asking(start: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [start, "Host: localhost", *headers, *([f"Content-Length: {len(body)}"] if body else [])]
    return "\r\n".join([*lines, "", ""]).encode() + body


# --- what a body answers ---


@case()
def _a_page(base):
    class Handler(base):
        def get(self):
            self.change()
            self.write(PAGE)

    return Handler


@case()
def _a_chunk_given_to_finish(base):
    class Handler(base):
        def get(self):
            self.change()
            self.finish({"a": [1, 2]})

    return Handler


@case(template_loader=DictLoader({"page.html": "<body>Hello {{ name }}</body>"}))
def _a_template(base):
    class Handler(base):
        async def get(self):
            self.change()
            await self.render("page.html", name="<you>")
            self.saw("rendered")

    return Handler


@case()
def _a_status_with_a_reason_of_its_own(base):
    class Handler(base):
        def get(self):
            self.change()
            self.set_status(299, "Quite Fine")
            self.write("done")

    return Handler


@case()
def _a_large_page(base):
    class Handler(base):
        def get(self):
            self.change()
            for _ in range(40):
                self.write(b"x" * 10_000)

    return Handler


@case()
def _a_length_of_its_own(base):
    class Handler(base):
        def get(self):
            self.change()
            self.set_header("Content-Length", "5")
            self.write("hello")

    return Handler


@case()
def _a_length_that_is_wrong(base):
    class Handler(base):
        def get(self):
            self.change()
            self.set_header("Content-Length", "50")
            self.write("hello")

    return Handler


@case()
def _several_cookies(base):
    class Handler(base):
        def get(self):
            self.change()
            self.add_header("Set-Cookie", "zero=0")
            self.set_cookie("one", "1", httponly=True)
            self.set_cookie("two", "2")
            self.set_cookie("three", "3", samesite="Lax")
            self.set_cookie("two", "22")
            self.clear_cookie("four")

    return Handler


@case()
def _a_redirect(base):
    class Handler(base):
        def get(self):
            self.change()
            self.redirect("/elsewhere", status=303)

    return Handler


@case()
def _a_redirect_in_prepare(base):
    class Handler(base):
        async def prepare(self):
            await super().prepare()
            self.change()
            self.redirect("/elsewhere")

        def get(self):
            self.saw("the method ran")
            self.write("secret")

    return Handler


@case(_asking("POST / HTTP/1.1", body=b"a=1"))
def _an_error_raised_in_prepare(base):
    class Handler(base):
        async def prepare(self):
            await super().prepare()
            self.change()
            raise HTTPError(403)

        def post(self):
            self.saw("the method ran")

    return Handler


@case(_asking("GET / HTTP/1.1", f'If-None-Match: "{sha1(PAGE.encode()).hexdigest()}"'))
def _a_page_the_client_has_already(base):
    class Handler(base):
        def get(self):
            self.change()
            self.write(PAGE)

    return Handler


@case()
def _nothing_at_all(base):
    class Handler(base):
        def get(self):
            self.change()
            self.set_status(204)

    return Handler


@case(saves=False)
def _a_body_where_none_may_be(base):
    class Handler(base):
        def get(self):
            self.change()
            self.set_status(204)
            self.write("oops")

    return Handler


@case(_asking("HEAD / HTTP/1.1"))
def _a_head_request(base):
    class Handler(base):
        def head(self):
            self.change()
            self.write(PAGE)

    return Handler


@case(_asking("DELETE / HTTP/1.1"))
def _a_method_it_has_not(base):
    class Handler(base):
        async def prepare(self):
            await super().prepare()
            self.change()

    return Handler


# --- how it is asked ---


@case(_asking("GET / HTTP/1.0"))
def _an_old_client(base):
    return _a_page(base)


@case(_asking("GET / HTTP/1.0", "Connection: keep-alive"))
def _an_old_client_that_stays(base):
    return _a_page(base)


@case(_asking("GET / HTTP/1.1", "Connection: close"))
def _a_client_that_asks_once(base):
    return _a_page(base)


@case(_asking("GET / HTTP/1.1", "Accept-Encoding: gzip"), compress_response=True)
def _a_compressed_page(base):
    return _a_page(base)


@case(_asking("GET /?1 HTTP/1.1"), _asking("GET /?2 HTTP/1.1"), _asking("GET /?3 HTTP/1.1"))
def _requests_in_a_row(base):
    class Handler(base):
        def get(self):
            if self.request.query != "2":
                self.change()
            self.write(self.request.query)

    return Handler


# --- exceptions ---


@case()
def _a_finish(base):
    class Handler(base):
        def get(self):
            self.change()
            self.set_status(202)
            self.write("so far")
            raise Finish

    return Handler


@case()
def _a_finish_with_a_word(base):
    class Handler(base):
        def get(self):
            self.change()
            raise Finish("bye")

    return Handler


@case()
def _a_404(base):
    class Handler(base):
        def get(self):
            self.change()
            self.set_header("X-Dropped", "1")
            self.set_cookie("kept", "1")
            raise HTTPError(404, "no such thing %s", "x", reason="Nowhere")

    return Handler


@case(saves=False)
def _a_500(base):
    class Handler(base):
        def get(self):
            self.change()
            raise HTTPError(500)

    return Handler


@case(saves=False)
def _an_uncaught_exception(base):
    class Handler(base):
        async def get(self):
            self.change()
            self.write("half a page")
            await asyncio.sleep(0)
            raise ValueError("boom")

    return Handler


@case(saves=False)
def _a_chunk_of_the_wrong_type(base):
    class Handler(base):
        def get(self):
            self.change()
            self.finish([1])

    return Handler


@case()
def _an_error_sent(base):
    class Handler(base):
        def get(self):
            self.change()
            self.send_error(403, reason="Not You")
            self.saw("went on")

    return Handler


@case(saves=False)
def _an_error_sent_twice(base):
    class Handler(base):
        def get(self):
            self.change()
            self.send_error(502)
            self.send_error(404)

    return Handler


@case()
def _an_error_page_of_its_own(base):
    class Handler(base):
        def write_error(self, status_code, **kwargs):
            self.set_header("X-Error", str(status_code))
            self.finish({"error": kwargs["exc_info"][1].status_code})

        def get(self):
            self.change()
            raise HTTPError(409)

    return Handler


@case()
def _an_error_page_that_fails(base):
    class Handler(base):
        def write_error(self, status_code, **kwargs):
            self.write("half")
            raise ValueError("boom")

        def get(self):
            self.change()
            raise HTTPError(404)

    return Handler


@case()
def _an_on_finish_that_fails(base):
    class Handler(base):
        def on_finish(self):
            super().on_finish()
            raise ValueError("boom")

        def get(self):
            self.change()
            self.write("done")

    return Handler


# --- after finish() ---


@case()
def _code_that_awaits_finish(base):
    class Handler(base):
        async def get(self):
            self.change()
            await self.finish("done")
            self.saw("sent")

    return Handler


@case()
def _a_second_finish(base):
    class Handler(base):
        def get(self):
            self.change()
            self.finish("once")
            try:
                self.finish("twice")
            except RuntimeError as exc:
                self.saw(str(exc))

    return Handler


@case()
def _a_write_after_finish(base):
    class Handler(base):
        def get(self):
            self.change()
            self.finish("once")
            self.write("more")

    return Handler


@case()
def _everything_after_finish(base):
    class Handler(base):
        def get(self):
            self.change()
            self.set_cookie("early", "1")
            self.finish("once")
            self.set_status(500)
            self.set_header("X-Late", "1")
            self.add_header("X-Late", "2")
            self.set_cookie("late", "1")
            self.clear_cookie("early")
            self.clear_header("Content-Type")
            self._write_buffer.append(b"more")

    return Handler


@case()
def _a_clear_after_finish(base):
    class Handler(base):
        def get(self):
            self.change()
            self.set_header("X-Mine", "1")
            self.set_status(202)
            self.finish("once")
            self.clear()

    return Handler


@case()
def _an_error_sent_after_finish(base):
    class Handler(base):
        def get(self):
            self.change()
            self.finish("once")
            self.send_error(500)

    return Handler


@case()
def _a_redirect_after_finish(base):
    class Handler(base):
        def get(self):
            self.change()
            self.finish("once")
            self.redirect("/elsewhere")

    return Handler


@case()
def _a_flush_after_finish(base):
    class Handler(base):
        def get(self):
            self.change()
            self.finish("once")
            self.flush()

    return Handler


@case()
def _an_exception_after_finish(base):
    class Handler(base):
        async def get(self):
            self.change()
            self.finish("once")
            raise HTTPError(500, "too late")

    return Handler


# --- streams ---


@case()
def _a_stream(base):
    class Handler(base):
        async def get(self):
            self.change()
            await self.settle()
            for part in ("one", "two", "three"):
                self.write(part)
                await self.flush()

    return Handler


@case(_asking("GET / HTTP/1.1", "Accept-Encoding: gzip"), compress_response=True)
def _a_compressed_stream(base):
    return _a_stream(base)


@case(_asking("GET / HTTP/1.0"))
def _a_stream_for_an_old_client(base):
    return _a_stream(base)


@case()
def _an_exception_in_a_stream(base):
    class Handler(base):
        async def get(self):
            self.change()
            await self.settle()
            self.write("one")
            await self.flush()
            raise ValueError("boom")

    return Handler


class Upload:
    """Receives a body piece by piece."""

    def data_received(self, chunk):
        """Remember a piece."""
        self.saw(f"received {chunk!r}")


UPLOAD = _asking("POST / HTTP/1.1", body=b"content")


@case(UPLOAD)
def _an_upload(base):
    @stream_request_body
    class Handler(Upload, base):
        def post(self):
            self.change()
            self.write("thanks")

    return Handler


@case(UPLOAD, is_refusing_a_body=True)
def _an_upload_refused_before_its_body(base):
    @stream_request_body
    class Handler(Upload, base):
        async def prepare(self):
            await super().prepare()
            self.change()
            self.set_status(403)
            self.finish("no")

        def post(self):
            self.saw("the method ran")

    return Handler


@case(UPLOAD, is_refusing_a_body=True)
def _an_upload_refused_at_its_body(base):
    @stream_request_body
    class Handler(Upload, base):
        def data_received(self, chunk):
            super().data_received(chunk)
            self.change()
            self.set_status(413)
            self.finish("no more")

        def post(self):
            self.saw("the method ran")

    return Handler


# --- the comparison ---


@dataclass
class Seen:
    """What a client, the handler and the logs saw of one connection."""

    replies: list[Reply | None]
    is_open: bool
    events: list[str]
    finishes: int
    access: list[int]
    logged: list[tuple[str, str]]


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """An application without form tokens, which would be a difference of their own."""
    lab = Lab(settings={"xsrf_cookies": False, "events": []})
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


@pytest.mark.parametrize("mode", ["nothing to save", "something to save", "held at the store"])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.gen_test
async def test_like_stock(case, mode, lab, http_server, http_port, caplog):
    """Whatever a handler does, client, handler and logs see the same with a session as without."""
    lab.app.settings.update(case.settings)
    if case.settings.get("compress_response"):
        lab.app.add_transform(GZipContentEncoding)
    base = Quiet if mode == "nothing to save" else Saving
    is_held = mode == "held at the store" and case.saves

    expected = await observe(lab, case, Stock, http_port, caplog, is_held=False)
    actual = await observe(lab, case, base, http_port, caplog, is_held=is_held)

    if case.is_refusing_a_body:
        # Stock hangs up on a body it has not read; while the session is saved there may be time to read it.
        actual.is_open = expected.is_open
    assert actual == expected
    if base is Saving:
        assert bool(lab.store.calls["create"]) is case.saves


@pytest.mark.gen_test
async def test_hang_up_while_saving(lab, http_server, http_port, caplog):
    """A client that hangs up while the session is saved cancels nothing, and nobody is told of an error."""
    lab.serve(
        "/", get=_a_page(Saving).get, bases=(Saving,), on_connection_close=lambda self: self.saw("hung up")
    )
    gate = lab.store.gate("create")
    wire = await Wire.connect(http_port)
    wire.send(GET)
    await gate.reached()

    await wire.close()
    await visit(http_port)
    gate.open()
    await lab.sessions.drain()

    assert await lab.data() == {"n": 1}
    assert lab.app.settings["events"] == ["on_finish"]
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.gen_test
async def test_impatient_handler(lab, http_server, http_port):
    """A handler that gives up waiting for finish() cancels neither the write nor the response."""

    async def get(self):
        self.change()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.finish("done"), timeout=0)
        self.saw("gave up")

    lab.serve("/", get=get, bases=(Saving,))
    gate = lab.store.gate("create")
    wire = await Wire.connect(http_port)
    wire.send(GET)
    await gate.reached()
    gate.open()
    reply = await wire.reply()
    await wire.close()

    assert (reply.status, reply.body) == (200, b"done")
    assert await lab.data() == {"n": 1}
    assert lab.app.settings["events"] == ["gave up", "on_finish"]


@pytest.mark.gen_test
async def test_slow_reader_and_drain(lab, http_server, http_port):
    """A shutdown waits for what is being saved, not for a client that does not read its response."""

    def get(self):
        self.change()
        self.write(b"x" * 30_000_000)

    lab.serve("/", get=get, bases=(Saving,))
    wire = await Wire.connect(http_port)
    wire.send(GET)
    await wire.first_byte()

    await asyncio.wait_for(lab.sessions.drain(), 10)

    assert await lab.data() == {"n": 1}
    await wire.close()


async def observe(lab, case, base, port, caplog, *, is_held):
    """Send the requests of *case* to its body on *base*; return what was seen."""
    lab.app.default_router.rules.clear()
    lab.app.add_handlers(".*", [("/ping", Ping), ("/.*", case.body(base))])
    events, access = lab.app.settings["events"], lab.access
    events.clear()
    access.clear()
    caplog.clear()
    gate = lab.store.gate("create") if is_held else None
    wire = await Wire.connect(port)
    wire.send(b"".join(case.requests))
    reading = asyncio.create_task(read(wire, case))
    if gate is not None:
        await gate.reached()
        await visit(port)
        access.pop()
        assert not reading.done()
        gate.open()
    replies = await reading
    is_open = await wire.is_open()
    await wire.close()
    await lab.sessions.drain()
    if is_open:
        access.pop()
    logged = [(r.name, r.levelname) for r in caplog.records if r.levelno >= logging.WARNING]
    said = [event for event in events if event != "on_finish"]
    return Seen(replies, is_open, said, len(events) - len(said), list(access), logged)


async def read(wire, case):
    """Return a reply to each request, without what a session adds."""
    replies = [await wire.reply(to_head=raw.startswith(b"HEAD")) for raw in case.requests]
    return [_stripped(reply) for reply in replies]


async def visit(port):
    """Exchange something on another connection; what was sent before on the first has arrived by then."""
    other = await Wire.connect(port)
    assert await other.is_open()
    await other.close()


def _stripped(reply):
    if reply is None:
        return None
    kept = []
    for name, value in reply.headers:
        if name == "Date" or (name, value) == ("Cache-Control", "no-store"):
            continue
        if name == "Set-Cookie" and value.startswith("id="):
            continue
        if name == "Set-Cookie":
            value = re.sub("expires=[^;]*", "expires=then", value)  # a second may pass between two replies
        if name == "Vary":
            value = ", ".join(part for part in value.split(", ") if part != "Cookie")
        if value:
            kept.append((name, value))
    # The header of gzip has the time in seconds (RFC 1952, MTIME), which may pass between two replies.
    body = reply.body
    body = body[:4] + bytes(4) + body[8:] if body.startswith(b"\x1f\x8b") else body
    return Reply(reply.status, reply.reason, tuple(sorted(kept, key=lambda pair: pair[0])), body)

"""The private names of Tornado's `RequestHandler` on which the mixin relies, each with what it relies on.

A failure here says which of them a new Tornado changed, before anything less obvious goes wrong.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from asyncio import Future
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.ioloop import IOLoop
from tornado.web import Application, Finish, HTTPError, RequestHandler

import stormcellar
from stormcellar import SessionMixin, SessionSocketMixin, SessionStreamMixin

PINNED = {
    "_finished",
    "_headers_written",
    "_new_cookie",
    "_status_code",
    "_reason",
    "_headers",
    "_write_buffer",
    "_handle_request_exception",
}


class Sent(HTTPConnection):
    """A connection that remembers the response."""

    start: ResponseStartLine
    headers: HTTPHeaders
    body: bytes | None

    def set_close_callback(self, callback: object) -> None:
        """Ignore hang-ups: nobody is connected."""

    def write_headers(
        self, start_line: Any, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> Future[None]:
        """Remember the first part."""
        self.start, self.headers, self.body = start_line, headers, chunk
        return Future()

    def write(self, chunk: bytes) -> Future[None]:
        """Ignore a further part."""
        return Future()

    def finish(self) -> None:
        """Ignore the end."""


@pytest.fixture
def sent() -> Sent:
    """What the handler sends."""
    return Sent()


@pytest.fixture
def handler(io_loop: IOLoop, sent: Sent) -> RequestHandler:
    """A handler that Tornado has just made for a request."""
    start = RequestStartLine("GET", "/", "HTTP/1.1")
    request = HTTPServerRequest(start_line=start, headers=HTTPHeaders({"Host": "localhost"}), connection=sent)
    handler = RequestHandler(Application(), request)
    handler._transforms = []
    return handler


def changed(name: str, how: str) -> str:
    """Say what a failing assertion means."""
    return f"tornado.web.RequestHandler.{name} {how}; server/web/ relies on that"


def test_every_private_name_is_pinned() -> None:
    """The code uses no private name of a handler beside those tested here."""
    names = set()
    for path in (Path(stormcellar.__file__).parent / "web").glob("*.py"):
        text = path.read_text()
        names |= set(re.findall(r"\b(?:handler|self)\.(_[a-z]\w*)", text))
        names |= set(re.findall(r'"(_[a-z]\w*)"', text)) - {"_xsrf"}
    stock = {name for name in names if hasattr(RequestHandler, name) or _is_set_by_tornado(name)}

    assert stock == PINNED


def test_mixin_takes_one_private_name_of_the_handler() -> None:
    """Applications may use every other private name; one object under `_stormcellar` holds our state."""
    bases = [base for base in SessionMixin.__mro__ if base.__module__.startswith("stormcellar.")]
    names = {name for base in bases for name in vars(base) if not name.startswith("__")}

    assert {name for name in names if name.startswith("_")} == {"_stormcellar"}
    assert {name for name in names if not hasattr(RequestHandler, name)} == {
        *("_stormcellar", "client_address", "login_required", "presented_handle", "reauthenticate"),
        *("session", "session_activity", "sessions", "while_session_lives"),
    }


@pytest.mark.parametrize("mixin", [SessionSocketMixin, SessionStreamMixin])
def test_mixins_for_sockets_and_streams_take_no_private_name(mixin: type) -> None:
    """Their state is under `_stormcellar` as well."""
    assert [name for name in vars(mixin) if re.match("_[^_]", name)] == []


def _is_set_by_tornado(name: str) -> bool:
    return re.search(rf"\bself\.{name}\b", inspect.getsource(RequestHandler)) is not None


def test_finished(handler: RequestHandler) -> None:
    """`_finished` is a plain attribute, False until the response is finished."""
    assert vars(handler).get("_finished") is False, changed(
        "_finished", "is no longer an attribute, False at first"
    )


def test_finished_stops_finish_and_write(handler: RequestHandler) -> None:
    """`finish()` and `write()` refuse a handler whose `_finished` is set."""
    handler._finished = True

    for method in (handler.finish, lambda: handler.write("x")):
        with pytest.raises(RuntimeError):
            method()


@pytest.mark.gen_test
async def test_finished_in_prepare_stops_the_method(
    app: Application, http_client: AsyncHTTPClient, http_port: int
) -> None:
    """A handler that sets `_finished` in `prepare` is left alone until it is answered."""
    ran: list[str] = []
    held: Future[RequestHandler] = Future()

    class Early(RequestHandler):
        def prepare(self) -> None:
            self._finished = True
            held.set_result(self)

        def get(self) -> None:
            ran.append("get")

    app.add_handlers(".*", [("/", Early)])
    fetching = asyncio.ensure_future(http_client.fetch(f"http://127.0.0.1:{http_port}/"))
    handler = await held
    handler._finished = False
    handler.finish("late")

    assert (await fetching).body == b"late", changed(
        "_finished", "no longer lets a response be finished later"
    )
    assert ran == [], changed("_finished", "no longer keeps _execute() from the method after prepare()")


@pytest.fixture
def app() -> Application:
    """An application without pages."""
    return Application()


def test_headers_written(handler: RequestHandler) -> None:
    """`_headers_written` is a plain attribute that the first `flush()` sets."""
    before = vars(handler).get("_headers_written")
    handler.flush()

    assert (before, handler._headers_written) == (False, True), changed(
        "_headers_written", "is no longer False until the first flush()"
    )


def test_new_cookie(handler: RequestHandler) -> None:
    """`_new_cookie` is in the instance's dict from the first `set_cookie` on, and not before."""
    before = "_new_cookie" in vars(handler)
    handler.set_cookie("a", "1")

    assert (before, type(vars(handler).get("_new_cookie"))) == (False, SimpleCookie), changed(
        "_new_cookie", "is no longer a SimpleCookie that the first set_cookie() makes"
    )


def test_new_cookie_may_be_deleted(handler: RequestHandler, sent: Sent) -> None:
    """Without `_new_cookie`, `set_cookie` begins anew and `flush` sends no cookie."""
    handler.set_cookie("a", "1")
    del vars(handler)["_new_cookie"]
    handler.set_cookie("b", "2")

    assert list(handler._new_cookie) == ["b"], changed("_new_cookie", "can no longer be deleted")
    del vars(handler)["_new_cookie"]
    handler.flush()
    assert sent.headers.get_list("Set-Cookie") == [], changed(
        "_new_cookie", "is missed by flush() when it is deleted"
    )


def test_new_cookie_is_written_by_flush(handler: RequestHandler, sent: Sent) -> None:
    """`flush` adds a header line for each of `_new_cookie`, after those that are there."""
    handler._transforms = []
    handler.add_header("Set-Cookie", "first=1")
    handler.set_cookie("second", "2")
    handler.flush()

    assert sent.headers.get_list("Set-Cookie") == ["first=1", "second=2; Path=/"], changed(
        "_new_cookie", "is no longer what flush() makes Set-Cookie lines of"
    )


def test_status_and_reason(handler: RequestHandler, sent: Sent) -> None:
    """`_status_code` and `_reason` are what `set_status` sets and `flush` sends."""
    handler.set_status(299, "Quite Fine")
    status = vars(handler).get("_status_code"), vars(handler).get("_reason")
    handler._status_code, handler._reason = 298, "Finer"
    handler.flush()

    assert status == (299, "Quite Fine"), changed(
        "_status_code", "or _reason is no longer what set_status() sets"
    )
    assert (sent.start.code, sent.start.reason) == (298, "Finer"), changed(
        "_status_code", "or _reason is no longer what flush() sends"
    )


def test_headers(handler: RequestHandler, sent: Sent) -> None:
    """`_headers` is an `HTTPHeaders` with a `copy()` of its own, and what `flush` sends."""
    handler.add_header("X-Twice", "1")
    handler.add_header("X-Twice", "2")
    copy = handler._headers.copy()
    handler.set_header("X-Late", "1")
    handler._headers = copy
    handler.flush()

    assert isinstance(copy, HTTPHeaders), changed("_headers", "is no longer an HTTPHeaders")
    assert (sent.headers.get_list("X-Twice"), "X-Late" in sent.headers) == (["1", "2"], False), changed(
        "_headers", "can no longer be copied and put back"
    )


def test_write_buffer(handler: RequestHandler, sent: Sent) -> None:
    """`_write_buffer` is a list of bytes: what `write` adds and `flush` sends."""
    handler.write("é")
    handler.write({"a": 1})
    buffer: Any = vars(handler).get("_write_buffer")
    handler._write_buffer = [b"put ", b"back"]
    handler.flush()

    assert buffer == ["é".encode(), b'{"a": 1}'], changed(
        "_write_buffer", "is no longer what write() adds to"
    )
    assert sent.body == b"put back", changed("_write_buffer", "is no longer what flush() sends")


@pytest.mark.parametrize(
    ("error", "status"), [(HTTPError(404), 404), (ValueError("boom"), 500), (Finish("bye"), 200)]
)
def test_handle_request_exception(error: Exception, status: int, handler: RequestHandler) -> None:
    """`_handle_request_exception` answers the exception being handled, by `send_error` or `finish`."""
    try:
        raise error
    except Exception as caught:
        handler._handle_request_exception(caught)

    assert (handler._finished, handler.get_status()) == (True, status), changed(
        "_handle_request_exception", "no longer answers the exception it is given"
    )

"""The response to a request with a session: held during the save; its cookies and cache headers."""

from __future__ import annotations

from asyncio import CancelledError, Future
from collections.abc import Callable, Coroutine
from typing import Any

from tornado.concurrent import future_set_result_unless_cancelled
from tornado.httputil import HTTPHeaders
from tornado.log import app_log
from tornado.web import RequestHandler

from stormcellar.sessions.request_info import CookieChange
from stormcellar.sessions.state import SessionState
from stormcellar.web.session_handler import HandlerState, SessionHandler

PROMPT_S = 2
"""A response that took longer leaves the cookie of a session that was over before the request."""

# --- hold ---


class HeldResponse:
    """Status, headers, cookies and body of a finished response.

    The handler gets new ones, because its later changes must have no effect, as on a stock handler. Tornado
    must regard it as finished, or it would run the handler after a redirect in `prepare`.
    """

    def __init__(self, handler: SessionHandler) -> None:
        settle_cookies(handler)
        self._status = handler._status_code, handler._reason
        self._headers = handler._headers
        self._body = handler._write_buffer
        handler._headers = HTTPHeaders()
        handler._write_buffer = []
        handler._finished = True
        _detach(handler)

    def restore(self, handler: SessionHandler) -> None:
        """Undo what the handler did after finish(), so that the response can be sent."""
        handler._finished = False
        handler.__dict__.pop("_new_cookie", None)
        handler._status_code, handler._reason = self._status
        handler._headers = self._headers
        handler._write_buffer = self._body


def _detach(handler: SessionHandler) -> None:
    """Stop Tornado from calling this handler again while the save is pending.

    Clear the close callback, and replace `data_received` and the HTTP method with no-ops.
    """
    request: Any = handler.request
    request.connection.set_close_callback(None)
    for name in ("data_received", request.method.lower()):
        setattr(handler, name, _ignore)


def _ignore(*args: object, **kwargs: object) -> None:
    """Replaces a method of a finished handler."""


def send_when_saved(
    handler: SessionHandler,
    held: HandlerState,
    save: Callable[[], Coroutine[Any, Any, None]],
    send: Callable[[], Future[None]],
) -> Future[None]:
    """Hold the response, *save* in a task, then *send* it; an error of *save* is sent instead.

    Returns:
        A future that resolves when the response was sent, or could not be.
    """
    response = HeldResponse(handler)
    assert held.state is not None
    held.state.seal("the response is finished")
    held.answered = answered = Future[None]()
    held.sessions.background.spawn(_save_then_send(handler, held, save(), response, send))
    return answered


async def _save_then_send(
    handler: SessionHandler,
    held: HandlerState,
    saving: Coroutine[Any, Any, None],
    response: HeldResponse,
    send: Callable[[], Future[None]],
) -> None:
    answered, state = held.answered, held.state
    assert answered is not None and state is not None
    try:
        await saving
    except (Exception, CancelledError) as error:  # the client gets an answer to every error
        held.answered = None
        response.restore(handler)
        state.drop_data()
        _send_exception(handler, error)
    else:
        held.answered = None
        response.restore(handler)
        try:
            # Not awaited: a client that reads slowly must not delay a shutdown.
            sent = send()
        except Exception as error:  # as Tornado does when finish() raises in the handler
            _send_exception(handler, error)
        else:
            sent.add_done_callback(lambda _: future_set_result_unless_cancelled(answered, None))
            return
    future_set_result_unless_cancelled(answered, None)


def _send_exception(handler: SessionHandler, error: BaseException) -> None:
    try:
        handler._handle_request_exception(error)
    except Exception:
        app_log.error("Exception in exception handler", exc_info=True)


# --- cookies ---


class CookieHeaders:
    """Adds our Set-Cookie headers to a response.

    The first is set directly, without Tornado's check of each character, which takes as long as signing the
    cookie. Our cookies contain no line break, and Tornado checks for one again when it sends the headers.
    """

    def __init__(self, headers: HTTPHeaders) -> None:
        self._headers = headers

    def add_header(self, name: str, value: str) -> None:
        """Add one header."""
        if name in self._headers:
            self._headers.add(name, value)
        else:
            self._headers[name] = value


def write_session_headers(held: HandlerState, headers: HTTPHeaders) -> None:
    """Add the cookies and cache headers of a response that begins now."""
    state, carries_secret, is_private = held.state, held.has_form, False
    if state is not None:
        state.sealed = "the response has begun"
        carries_secret |= state.cookie is not CookieChange.KEEP
        is_private = state.is_private
    if carries_secret:
        _write_cookies(held, headers)
    if carries_secret or is_private or held.is_accessed:
        restrict_caches(headers, forbid=carries_secret or is_private, override=carries_secret)


def settle_cookies(handler: RequestHandler) -> None:
    """Turn the cookies that the handler set into headers, in their order.

    A browser obeys the last header for a name, so cookies added later prevail: `clear_all_cookies()` in a
    handler must not remove the only copy of a new secret.
    """
    cookies: dict[str, Any] | None = handler.__dict__.pop("_new_cookie", None)
    for morsel in cookies.values() if cookies else ():
        handler.add_header("Set-Cookie", morsel.OutputString())


def _write_cookies(held: HandlerState, headers: HTTPHeaders) -> None:
    state, cookies, lines = held.state, held.sessions.cookies, CookieHeaders(headers)
    if state is not None and state.cookie is CookieChange.SET and state.sid is not None:
        cookies.write(lines, state.sid, max_age_s=held.sessions.cookie_max_age_s(state))
    elif state is not None and state.cookie is CookieChange.CLEAR and _may_clear(held, state):
        cookies.clear(lines)
    _write_nonce(held, lines)


def _may_clear(held: HandlerState, state: SessionState) -> bool:
    """Whether the browser's cookie is still the one of this request, as far as can be known.

    A slow response, such as that of a long poll, must not remove the cookie of a sign-in that came meanwhile.
    The next request clears it.
    """
    # A form of this response is bound to the nonce, which counts only without a session cookie.
    return state.is_signed_out or held.has_form or state.request.age_s < PROMPT_S


def _write_nonce(held: HandlerState, lines: CookieHeaders) -> None:
    """Set the nonce that a new form needs; clear the old one at a sign-in or sign-out."""
    state = held.state
    changes_user = state is not None and _changes_user(state)
    if not (held.has_form or changes_user):
        return
    old, new = held.request_nonce, held.nonce if state is None else state.reserved
    is_bound = state is not None and held.sid is not None and state.cookie is CookieChange.KEEP
    if held.has_form and new and not is_bound and (changes_user or not old):
        held.sessions.cookies.write_nonce(lines, new)
    elif old and changes_user:
        held.sessions.cookies.clear_nonce(lines)


def _changes_user(state: SessionState) -> bool:
    """Whether this request signed in or out, after which earlier form tokens must not count."""
    if state.is_signed_out:
        return state.cookie is not CookieChange.KEEP
    return state.cookie is CookieChange.SET and state.user is not None


# --- caches ---


def restrict_caches(headers: HTTPHeaders, *, forbid: bool, override: bool) -> None:
    """Add Vary: Cookie and, if *forbid*, Cache-Control: no-store unless the handler set its own.

    With *override*, a Cache-Control that lets a shared cache store the response is replaced: the response
    contains a new cookie or a form token.
    """
    if "Vary" not in headers:
        headers["Vary"] = "Cookie"
    else:
        _vary_by_cookie(headers)
    if forbid and ("Cache-Control" not in headers or not headers["Cache-Control"].strip()):
        headers["Cache-Control"] = "no-store"
    elif override:
        _forbid_shared_caches(headers)


def _vary_by_cookie(headers: HTTPHeaders) -> None:
    vary = ", ".join(headers.get_list("Vary"))
    names = {name.strip().lower() for name in vary.split(",")}
    if not names & {"cookie", "*"}:
        headers["Vary"] = f"{vary}, Cookie" if vary else "Cookie"


def _forbid_shared_caches(headers: HTTPHeaders) -> None:
    directives = {part.strip().lower() for part in headers["Cache-Control"].split(",")}
    if not directives & {"private", "no-store"}:
        headers["Cache-Control"] = "no-store"

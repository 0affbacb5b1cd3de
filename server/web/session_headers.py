"""The headers that a session adds to its response: its cookies, and what caches may do."""

from __future__ import annotations

from typing import Any

from tornado.httputil import HTTPHeaders
from tornado.web import RequestHandler

from stormcellar.sessions.request_info import CookieChange, Presence
from stormcellar.sessions.state import SessionState
from stormcellar.web.session_handler import HandlerState


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
        cookies.write(lines, state.sid, max_age_s=_max_age_s(held, state))
    elif state is not None and state.cookie is CookieChange.CLEAR:
        cookies.clear(lines)
    _write_nonce(held, lines)


def _max_age_s(held: HandlerState, state: SessionState) -> int | None:
    """Return how long the browser keeps the cookie; None: until it closes."""
    if held.sessions.lifetime.remember_s is None or not state.is_remembered or held.session is None:
        return None
    return held.sessions.deadline_left_s(held.session)


def _write_nonce(held: HandlerState, lines: CookieHeaders) -> None:
    """Set the nonce that a new form needs; clear the old one at a sign-in or sign-out."""
    state = held.state
    changes_user = state is not None and _changes_user(state)
    if not (held.has_form or changes_user):
        return
    old, new = held.request_nonce, held.nonce if state is None else state.reserved
    if held.has_form and new and (changes_user or not old):
        held.sessions.cookies.write_nonce(lines, new)
    elif old and changes_user:
        held.sessions.cookies.clear_nonce(lines)


def _changes_user(state: SessionState) -> bool:
    """Whether this request signed in or out, after which earlier form tokens must not count."""
    if state.presence is Presence.SIGNED_OUT:
        return state.cookie is CookieChange.CLEAR
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

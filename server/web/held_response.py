"""A response on its way out: what a handler decided when it called `finish()`, and what a session adds."""

from __future__ import annotations

from tornado.httputil import HTTPHeaders
from tornado.web import RequestHandler


class FrozenResponse:
    """Status, headers, cookies and body of a response, kept while the session is saved.

    The handler is left with others to change, as on a stock handler nothing changes after finish().
    """

    def __init__(self, handler: RequestHandler) -> None:
        settle_cookies(handler)
        self._status = handler._status_code, handler._reason
        self._headers = handler._headers
        self._body = handler._write_buffer
        handler._headers = HTTPHeaders()
        handler._write_buffer = []

    def restore(self, handler: RequestHandler) -> None:
        """Undo whatever the handler did after finish()."""
        handler.__dict__.pop("_new_cookie", None)
        handler._status_code, handler._reason = self._status
        handler._headers = self._headers
        handler._write_buffer = self._body


class CookieLines:
    """Takes the Set-Cookie lines of ours into the headers of a response.

    The first goes past Tornado's look at each character, which takes as long as to sign the cookie. There is
    a line break in none, of which Tornado makes sure once more when it sends them.
    """

    def __init__(self, headers: HTTPHeaders) -> None:
        self._headers = headers

    def add_header(self, name: str, value: str) -> None:
        """Add one header line."""
        if name in self._headers:
            self._headers.add(name, value)
        else:
            self._headers[name] = value


def settle_cookies(handler: RequestHandler) -> None:
    """Turn the cookies that the handler set into header lines, in their order.

    A browser obeys the last line for a name, so what is added after this prevails: `clear_all_cookies()` in a
    handler must not take back the only copy of a new secret.
    """
    cookies = handler.__dict__.pop("_new_cookie", None)
    if cookies is None:
        return
    for morsel in cookies.values():
        handler.add_header("Set-Cookie", morsel.OutputString())


def tell_caches(headers: HTTPHeaders, *, forbid: bool, whatever_was_said: bool) -> None:
    """Tell caches that another browser gets another response, and, where *forbid* says so, to keep nothing.

    What the handler told them stays, unless it would let a shared cache keep what it must not *whatever was
    said*: a new cookie, or a form token.
    """
    if "Vary" not in headers:
        headers["Vary"] = "Cookie"
    else:
        _vary_by_cookie(headers)
    if forbid and ("Cache-Control" not in headers or not headers["Cache-Control"].strip()):
        headers["Cache-Control"] = "no-store"
    elif whatever_was_said:
        _keep_from_shared_caches(headers)


def _vary_by_cookie(headers: HTTPHeaders) -> None:
    vary = ", ".join(headers.get_list("Vary"))
    names = {name.strip().lower() for name in vary.split(",")}
    if not names & {"cookie", "*"}:
        headers["Vary"] = f"{vary}, Cookie" if vary else "Cookie"


def _keep_from_shared_caches(headers: HTTPHeaders) -> None:
    directives = {part.strip().lower() for part in headers["Cache-Control"].split(",")}
    if not directives & {"private", "no-store"}:
        headers["Cache-Control"] = "no-store"

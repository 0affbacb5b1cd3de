"""What a handler decided when it called `finish()`."""

from __future__ import annotations

from tornado.web import RequestHandler


class FrozenResponse:
    """Status, headers, cookies and body of a response, kept while the session is saved."""

    def __init__(self, handler: RequestHandler) -> None:
        self._status = handler._status_code, handler._reason
        self._headers = handler._headers.copy()
        self._body = list(handler._write_buffer)
        new_cookies = handler._new_cookie.values() if hasattr(handler, "_new_cookie") else ()
        self._cookies = [morsel.OutputString() for morsel in new_cookies]

    def restore(self, handler: RequestHandler) -> None:
        """Undo whatever the handler did after finish(), which on a stock handler changes nothing either."""
        handler._status_code, handler._reason = self._status
        handler._headers = self._headers
        handler._write_buffer = self._body
        handler.__dict__.pop("_new_cookie", None)
        for line in self._cookies:
            handler.add_header("Set-Cookie", line)

"""`login_required`: a handler that no visitor reaches."""

from __future__ import annotations

from urllib.parse import urlsplit

from tornado.httputil import url_concat
from tornado.web import HTTPError, RequestHandler
from tornado.websocket import WebSocketHandler


def require_login(handler: RequestHandler) -> None:
    """Answer a visitor: redirect a GET to `login_url` with `?next=`, as `tornado.web.authenticated` does.

    Raises:
        HTTPError: 403: any other method, or a WebSocket handshake.
    """
    request = handler.request
    if request.method not in ("GET", "HEAD") or isinstance(handler, WebSocketHandler):
        raise HTTPError(403, "nobody is signed in")
    url = handler.get_login_url()
    if "?" not in url:
        # A sign-in page at another address needs the whole URL.
        url = url_concat(url, {"next": request.full_url() if urlsplit(url).scheme else request.uri or "/"})
    handler.redirect(url, status=303)

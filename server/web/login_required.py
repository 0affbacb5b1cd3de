"""`login_required`: a handler that no visitor reaches."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from inspect import isawaitable
from typing import Any
from urllib.parse import urlsplit

from tornado.httputil import url_concat
from tornado.web import HTTPError, RequestHandler
from tornado.websocket import WebSocketHandler


def guarded(prepare: Callable[[Any], Any]) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """Return *prepare* of a class derived from `SessionMixin`, with a check that it ran the mixin's.

    A result that can be awaited is awaited, so `return super().prepare()` works in a coroutine as well.
    """
    if hasattr(prepare, "is_guarded"):
        return prepare

    @wraps(prepare)
    async def guarded_prepare(handler: Any) -> None:
        result = prepare(handler)
        while isawaitable(result):
            result = await result
        if handler.login_required and handler._stormcellar.state is None and not handler._finished:
            kind = type(handler).__name__
            raise RuntimeError(f"{kind}.prepare() must await super().prepare(), for login_required")

    guarded_prepare.is_guarded = True  # type: ignore[attr-defined]
    return guarded_prepare


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

"""What every handler of the standalone server shares: headers, methods, errors, who may pass."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from types import TracebackType
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlencode

from tornado.web import RequestHandler

from server import logs
from server.handlers.bodies import FORM, JSON, require_type
from server.handlers.context import Context
from server.handlers.negotiation import is_local, prefers_json, safe_next
from server.handlers.problems import WORDS, Problem, describe
from server.mixin import SAFE_METHODS, SessionMixin
from server.network import client_address, is_in

HEADERS = {
    "Cache-Control": "no-store",
    "Vary": "Accept, Cookie",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
}

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class BaseHandler(RequestHandler):
    """Headers, negotiation and errors, without a session."""

    context: Context
    always_json: ClassVar[bool] = False
    body_types: ClassVar[tuple[str, ...]] = (FORM, JSON)
    through_proxy: ClassVar[bool] = True
    """Whether, behind a proxy, this is for requests that come through it."""
    page: ClassVar[str] = "/"
    """Where a person goes on from a form that was sent here."""

    def initialize(self, context: Context) -> None:
        """Take the context, and count this request as in flight."""
        self.context = context
        context.in_flight.enter()
        self._close_if_draining()

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        """Send the response, and count this request as done once the client has read it, or is gone."""
        sent = super().finish(chunk)
        sent.add_done_callback(lambda _: self.context.in_flight.leave())
        return sent

    def _close_if_draining(self) -> None:
        if self.context.in_flight.is_draining:
            self.set_header("Connection", "close")

    def set_default_headers(self) -> None:
        """Set what every response carries, and take back what Tornado tells about itself."""
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def compute_etag(self) -> str | None:
        """Make none: nothing here may be stored, so there is nothing to compare it with."""
        return None

    @property
    def wants_json(self) -> bool:
        """Whether to answer in JSON."""
        return self.always_json or prefers_json(self.request.headers.get("Accept", ""))

    def client_address(self) -> str:
        """Return the peer, or the client that the trusted proxies in front say they speak for."""
        forwarded = self.request.headers.get_list("X-Forwarded-For")
        return client_address(self.request.remote_ip or "", forwarded, self.context.proxies)

    # --- methods ---

    def prepare(self) -> Awaitable[None] | None:
        """Answer what needs no session: a way past the proxy, OPTIONS, a method that is not taken."""
        proxies = self.context.proxies
        if self.through_proxy and proxies and not is_in(self.request.remote_ip or "", proxies):
            raise Problem(403, code="insecure_transport")
        if self.request.method == "OPTIONS":
            self.set_status(204)
            self.set_header("Allow", self._allowed())
            self.finish()
        else:
            self._require_method()
        return None

    def check_xsrf_cookie(self) -> None:
        """Refuse a method or a body type this address does not take; there is no session to protect."""
        self._require_method()
        require_type(self.request, *self.body_types)

    def head(self, *args: str) -> Awaitable[None] | None:
        """Answer as GET does, without the body."""
        return self.get(*args)

    def _takes(self, method: str) -> bool:
        stock = RequestHandler._unimplemented_method
        return getattr(type(self), "get" if method == "HEAD" else method.lower()) is not stock

    def _require_method(self) -> None:
        if not self._takes(self.request.method or ""):
            raise Problem(405)

    def _allowed(self) -> str:
        return ", ".join([*filter(self._takes, _METHODS), "OPTIONS"])

    # --- answers ---

    def see_other(self, target: str) -> None:
        """Redirect so that the browser GETs *target*."""
        self.redirect(target, status=303)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with `{"error": {"code", "message"}}` or a small page; never with a trace."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        code, message = describe(status_code, error)
        self._close_if_draining()  # send_error() has cleared the headers
        if status_code == 405:
            self.set_header("Allow", self._allowed())
        if self.wants_json:
            self.finish({"error": {"code": code, "message": message}})
        else:
            title = WORDS[code].title
            self.render("error.html", title=title, code=code, message=message, again=self._again())

    def _again(self) -> str:
        """Return where the person who sees an error may try again: this page, or the one with the form."""
        uri = self.request.uri or "/"
        return uri if self._takes("GET") and is_local(uri) else self.page

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log without the query string, which Tornado would include."""
        logs.log_problem(self.request, value)


class PageHandler(SessionMixin, BaseHandler):
    """A handler with a session."""

    def client_address(self) -> str:
        """Return who the client is, as `BaseHandler` sees it."""
        return BaseHandler.client_address(self)

    def check_xsrf_cookie(self) -> None:
        """Refuse a wrong method or body type first, then a request without a form token."""
        BaseHandler.check_xsrf_cookie(self)
        SessionMixin.check_xsrf_cookie(self)

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log without the query string."""
        BaseHandler.log_exception(self, typ, value, tb)

    def session_data(self) -> dict[str, Any]:
        """Return what the session holds, by key, so that no store's own order shows through."""
        return dict(sorted(self.session.items()))


class NotFound(BaseHandler):
    """Every address that is none."""

    def check_xsrf_cookie(self) -> None:
        """Let every method through to the 404."""

    def prepare(self) -> None:
        """Answer 404."""
        raise Problem(404)


P = ParamSpec("P")
H = TypeVar("H", bound=PageHandler)


def signed_in(
    method: Callable[Concatenate[H, P], Coroutine[Any, Any, None]],
) -> Callable[Concatenate[H, P], Coroutine[Any, Any, None]]:
    """Let a method run only for a signed-in user: else 401 in JSON, a redirect to sign-in for pages."""

    @wraps(method)
    async def wrapper(handler: H, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if handler.session.user is not None:
            await method(handler, *args, **kwargs)
        elif handler.wants_json:
            raise Problem(401)
        else:
            is_safe = handler.request.method in SAFE_METHODS
            next_page = safe_next(handler.request.uri if is_safe else handler.page)
            handler.see_other("/login?" + urlencode({"next": next_page}))

    return wrapper

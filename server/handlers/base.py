"""What every handler of the standalone server shares: headers, bodies, errors, who may pass."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from http import HTTPStatus
from types import TracebackType
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlencode

from tornado.web import HTTPError, RequestHandler, StaticFileHandler

from server import values
from server.errors import Busy, SessionError
from server.handlers.context import Context
from server.handlers.negotiation import is_plain_type, prefers_json, safe_next
from server.handlers.problems import Problem, describe
from server.mixin import SAFE_METHODS, SessionMixin
from server.network import client_address
from stores import StoreUnavailable

log = logging.getLogger("stormcellar.http")

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

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


class BaseHandler(RequestHandler):
    """Headers, negotiation and errors, without a session."""

    context: Context
    always_json: ClassVar[bool] = False
    body_types: ClassVar[tuple[str, ...]] = (FORM, JSON)

    def initialize(self, context: Context) -> None:
        """Take the context, and count this request as in flight."""
        self.context = context
        context.in_flight.enter()
        if context.in_flight.is_draining:
            self.set_header("Connection", "close")

    def on_finish(self) -> None:
        """Count this request as done."""
        self.context.in_flight.leave()

    def set_default_headers(self) -> None:
        """Set what every response carries, and take back what Tornado tells about itself."""
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    @property
    def wants_json(self) -> bool:
        """Whether to answer in JSON."""
        return self.always_json or prefers_json(self.request.headers.get("Accept", ""))

    def client_address(self) -> str:
        """Return the peer, or the client that the trusted proxies in front say they speak for."""
        forwarded = self.request.headers.get_list("X-Forwarded-For")
        return client_address(self.request.remote_ip or "", forwarded, self.context.proxies)

    # --- methods ---

    def head(self, *args: str) -> Awaitable[None] | None:
        """Answer as GET does, without the body."""
        return self.get(*args)

    def options(self, *args: str) -> None:
        """Say which methods there are."""
        self.set_status(204)
        self.set_header("Allow", ", ".join(self._methods()))

    def _methods(self) -> list[str]:
        stock = RequestHandler._unimplemented_method
        has = {m: getattr(type(self), m.lower()) is not stock for m in _METHODS}
        return [m for m in _METHODS if has["GET" if m == "HEAD" else m]]

    def check_xsrf_cookie(self) -> None:
        """Refuse a method or a body type this address does not take; there is no session to protect."""
        if self.request.method not in self._methods():
            raise Problem(405)
        content_type = self.request.headers.get("Content-Type", "")
        if (self.request.body or content_type) and not any(
            is_plain_type(content_type, media) for media in self.body_types
        ):
            raise Problem(415)

    # --- bodies ---

    def json_body(self, *, unique: bool = False) -> dict[str, Any]:
        """Return the body, a JSON object.

        Raises:
            Problem: 400, with what is wrong.
        """
        try:
            body = values.parse(self.request.body, unique=unique)
        except values.NotJSON as exc:
            raise Problem(400, f"{exc}.".capitalize()) from None
        if not isinstance(body, dict):
            raise Problem(400, "The body must be a JSON object.")
        return body

    def text_fields(self, *names: str, optional: str = "") -> dict[str, str]:
        """Return the fields of a form or a JSON object, each a string that comes once.

        Raises:
            Problem: 400 for a missing, duplicate, undecodable or non-string field, or one in the URL.
        """
        if self.request.query_arguments.keys() & set(names):
            raise Problem(400, "These fields are taken from the body only.")
        if is_plain_type(self.request.headers.get("Content-Type", ""), JSON):
            found = {k: v for k, v in self.json_body(unique=True).items() if k in (*names, optional)}
        else:
            found = {name: self._form_field(name) for name in (*names, optional)}
        fields = {name: value for name, value in found.items() if value is not None}
        if any(not isinstance(value, str) for value in fields.values()) or not fields.keys() >= set(names):
            raise Problem(400, f"Each of {', '.join(names)} must be given once, as text.")
        return fields

    def _form_field(self, name: str) -> str | None:
        given = self.get_body_arguments(name, strip=False)
        if len(given) > 1:
            raise Problem(400, f"{name} is given more than once.")
        return given[0] if given else None

    # --- answers ---

    def see_other(self, target: str) -> None:
        """Redirect so that the browser GETs *target*."""
        self.redirect(target, status=303)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with `{"error": {"code", "message"}}` or a small page; never with a trace."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        code, message = describe(status_code, error)
        if status_code == 405:
            self.set_header("Allow", ", ".join(self._methods()))
        if self.wants_json:
            self.finish({"error": {"code": code, "message": message}})
        else:
            again = self.request.path if self.request.method in SAFE_METHODS else "/"
            title = "Not now" if status_code == 503 else HTTPStatus(status_code).phrase
            self.render("error.html", title=title, code=code, message=message, again=safe_next(again))

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log without the query string, which Tornado would include."""
        line = f"{self.request.method} {self.request.path[:200]!r}"
        if isinstance(value, HTTPError | SessionError | StoreUnavailable | Busy):
            cause = f" ({type(value.__cause__).__name__})" if value.__cause__ else ""
            log.info("%s: %s%s", line, describe(getattr(value, "status_code", 500), value)[0], cause)
        else:
            assert typ is not None and value is not None
            log.error("%s: uncaught %s", line, typ.__name__, exc_info=(typ, value, tb))


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


class NotFound(BaseHandler):
    """Every address that is none."""

    def check_xsrf_cookie(self) -> None:
        """Let every method through to the 404."""

    def prepare(self) -> None:
        """Answer 404."""
        raise Problem(404)


class Static(StaticFileHandler):
    """The style sheet: cacheable, and as silent about the server as every other answer."""

    def set_default_headers(self) -> None:
        """Set the headers that fit a static file."""
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")

    def set_extra_headers(self, path: str) -> None:
        """Let browsers keep it for an hour."""
        self.set_header("Cache-Control", "public, max-age=3600")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with the reason alone."""
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish(HTTPStatus(status_code).phrase)


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
            next_page = handler.request.uri if handler.request.method in SAFE_METHODS else "/"
            handler.see_other("/login?" + urlencode({"next": safe_next(next_page)}))

    return wrapper

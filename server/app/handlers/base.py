"""Base classes of the handlers: methods, headers, error responses, events."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import wraps
from types import TracebackType
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlencode

from tornado.web import HTTPError, RequestHandler

from stormcellar.app.context import Context
from stormcellar.app.edge import EdgeHandler
from stormcellar.app.error_texts import TEXTS, Problem, describe
from stormcellar.app.handlers.bodies import FORM, JSON, require_type
from stormcellar.app.handlers.negotiation import is_local, prefers_json, safe_next
from stormcellar.app.security_headers import CACHING
from stormcellar.events import Kind
from stormcellar.sessions.data.limits import is_private_key
from stormcellar.sessions.manager import SessionManager
from stormcellar.stores import StoreUnavailable
from stormcellar.stores.errors import failure_reason
from stormcellar.web.csrf_mixin import InvalidFormToken, InvalidOrigin, require_origin
from stormcellar.web.mixin import SessionMixin, load_session
from stormcellar.web.session_handler import SETTING
from stormcellar.web.tornado_request import SAFE_METHODS

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class BaseHandler(EdgeHandler):
    """A handler without a session: content negotiation, methods, errors."""

    context: Context
    always_json: ClassVar[bool] = False
    body_types: ClassVar[tuple[str, ...]] = (FORM, JSON)
    page: ClassVar[str] = "/"
    """The page with the form that is sent to this handler; error pages link to it."""
    store_down: ClassVar[str] = TEXTS["store_unavailable"].message
    """The message of a 503 because of the store."""

    def initialize(self, context: Context) -> None:
        """Take the context, and count this request as in progress."""
        self.context = context
        self.receive(context.edge)
        context.in_flight.enter()

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        """Send the response; the request is in progress until it is sent or the client disconnects."""
        sent = super().finish(chunk)
        sent.add_done_callback(lambda _: self.context.in_flight.leave())
        return sent

    def set_default_headers(self) -> None:
        """Forbid caching, whatever the status. `security_headers` adds the other headers."""
        for name, value in CACHING.items():
            self.set_header(name, value)

    def compute_etag(self) -> str | None:
        """Return None: responses are not cached, so there is nothing to compare."""
        return None

    @property
    def shown_user(self) -> str | None:
        """Who is signed in, as far as the page of this handler shows it."""
        return None

    @property
    def wants_json(self) -> bool:
        """Whether to answer in JSON."""
        return self.always_json or prefers_json(self.request.headers.get("Accept", ""))

    # --- methods ---

    def prepare(self) -> Awaitable[None] | None:
        """Answer what needs no session: a disallowed request, OPTIONS, an unsupported method."""
        self.enforce_edge()
        if self.request.method == "OPTIONS":
            self.set_status(204)
            self.set_header("Allow", self._allow_header())
            self.finish()
        else:
            self._require_method()
        return None

    def check_xsrf_cookie(self) -> None:
        """Check method, origin and media type. Without a session there is no form token to check."""
        self.enforce_edge()
        self._require_method()
        require_origin(self.request)
        require_type(self.request, *self.body_types)

    def head(self, *args: str) -> Awaitable[None] | None:
        """Answer as GET does, without the body."""
        return self.get(*args)

    def _supports(self, method: str) -> bool:
        stock = RequestHandler._unimplemented_method
        return getattr(type(self), "get" if method == "HEAD" else method.lower()) is not stock

    def _require_method(self) -> None:
        if not self._supports(self.request.method or ""):
            raise Problem(405)

    def _allow_header(self) -> str:
        return ", ".join([*filter(self._supports, _METHODS), "OPTIONS"])

    # --- responses ---

    def see_other(self, target: str) -> None:
        """Redirect with 303, so that the browser requests *target* with GET."""
        self.redirect(target, status=303)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with `{"error": {"code", "message"}}` or an error page; never with a traceback."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        code, message = describe(status_code, error)
        message = self.store_down if isinstance(error, StoreUnavailable) else message
        if status_code == 405:
            self.set_header("Allow", self._allow_header())
        if self.wants_json:
            self.finish({"error": {"code": code, "message": message}})
        else:
            title = TEXTS[code].title
            self.render("error.html", title=title, code=code, message=message, retry_url=self._retry_url())

    def _retry_url(self) -> str:
        """Return the link "Try again" of an error page: this page, or the one that has the form."""
        uri = self.request.uri or "/"
        return uri if self._supports("GET") and is_local(uri) else self.page

    # --- events ---

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log without the query string; emit an event for a failing store and a cross-origin request."""
        super().log_exception(typ, value, tb)
        if isinstance(value, StoreUnavailable):
            self.emit(Kind.STORE_FAILED, reason=failure_reason(value))
        elif _is_cross_origin(value):
            self.emit(Kind.ORIGIN_REJECTED)

    def emit(self, kind: Kind, *, user: str | None = None, reason: str | None = None) -> None:
        """Emit an event about this request; see `stormcellar.events`."""
        manager: SessionManager = self.settings[SETTING]
        handle, address = self.presented_handle(), self.client_address()
        manager.events.emit(kind, handle=handle, user=user, address=address, reason=reason)

    def presented_handle(self) -> str | None:
        """Return the session handle from a correctly signed cookie, even if the session has ended."""
        return None


def _is_cross_origin(error: BaseException | None) -> bool:
    """Whether *error* is Tornado's refusal of an unsafe cross-origin request (web.py, 6.6.1)."""
    if isinstance(error, InvalidOrigin):
        return True
    if type(error) is not HTTPError or error.status_code != 403:
        return False
    return (error.log_message or "").startswith(("Origin ", "Sec-Fetch-Site "))


class PageHandler(SessionMixin, BaseHandler):
    """A handler with a session."""

    done: Problem | None = None
    """What this request has done for good; the response tells it instead of a later error."""

    refused: InvalidFormToken | None = None
    """Why this form has no effect; `prepare` answers it, so that the method does not run."""

    async def prepare(self) -> None:
        """Answer what needs no session, else load it; then it is known how to answer a refused form."""
        BaseHandler.prepare(self)
        if self._finished:
            return
        await load_session(self)
        if self.refused is not None:
            await self.answer_refused(self.refused)
            if not self._finished:
                raise self.refused

    @property
    def shown_user(self) -> str | None:
        """Who is signed in; an error page has the navigation as well."""
        return self.session.user

    async def answer_refused(self, refused: InvalidFormToken) -> None:
        """Answer a form whose token is not valid, without any effect; by default with the error."""
        raise refused

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answer with `done` if there is one, else with the error."""
        if self.done is not None:
            status_code, kwargs = self.done.status_code, {"exc_info": (Problem, self.done, None)}
        super().send_error(status_code, **kwargs)

    def client_address(self) -> str:
        """Return the client's address as `BaseHandler` does, not as `SessionMixin` does."""
        return BaseHandler.client_address(self)

    def check_xsrf_cookie(self) -> None:
        """Check method, origin and media type first, then the form token; `prepare` answers without one."""
        BaseHandler.check_xsrf_cookie(self)
        try:
            SessionMixin.check_xsrf_cookie(self)
        except InvalidFormToken as error:
            if self.wants_json:
                raise
            self.refused = error

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log and emit events as `BaseHandler` does."""
        BaseHandler.log_exception(self, typ, value, tb)

    def ask_to_sign_in(self) -> None:
        """Redirect to sign-in."""
        self.see_other(self.sign_in_url())

    def sign_in_url(self, **parameters: str) -> str:
        """Return the address of the sign-in that leads back to this page, or to the page of this form."""
        is_safe = self.request.method in SAFE_METHODS
        next_page = safe_next(self.request.uri if is_safe else self.page)
        return "/login?" + urlencode({"next": next_page, **parameters})

    def session_data(self) -> dict[str, Any]:
        """Return what a client may see of the session's data, sorted by key: the same for every store."""
        return {key: self.session[key] for key in sorted(self.session) if not is_private_key(key)}


class NotFound(PageHandler):
    """Fallback handler: 404 for unknown paths. The page shows who is signed in."""

    def check_xsrf_cookie(self) -> None:
        """Check the origin only: every method gets the 404."""
        require_origin(self.request)

    async def prepare(self) -> None:
        """Answer 404, also while the store is down."""
        self.enforce_edge()
        with suppress(StoreUnavailable):
            await load_session(self)
        raise Problem(404)


P = ParamSpec("P")
H = TypeVar("H", bound=PageHandler)


def signed_in(
    method: Callable[Concatenate[H, P], Coroutine[Any, Any, None]],
) -> Callable[Concatenate[H, P], Coroutine[Any, Any, None]]:
    """Require a signed-in user: without one answer 401 in JSON, and redirect pages to sign-in."""

    @wraps(method)
    async def wrapper(handler: H, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if handler.session.user is not None:
            await method(handler, *args, **kwargs)
        elif handler.wants_json:
            raise Problem(401)
        else:
            handler.ask_to_sign_in()

    return wrapper

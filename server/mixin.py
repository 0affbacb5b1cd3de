"""`SessionMixin`: the session of a Tornado request, loaded in `prepare`, saved before the first byte.

The order of things in Tornado 6.6 that this builds on: the body is parsed, `check_xsrf_cookie` runs,
`prepare`, the method, `finish`. Each private name of `RequestHandler` used here is pinned by a test.
"""

from __future__ import annotations

import sys
from asyncio import Future
from types import TracebackType
from typing import Any, cast

from tornado.iostream import StreamClosedError
from tornado.log import gen_log
from tornado.web import HTTPError, RequestHandler
from tornado.websocket import WebSocketHandler

from server.cookies import SessionId
from server.errors import Busy, SessionError
from server.manager import SessionManager
from server.network import is_loopback
from server.request import Client, CookieChange, Presence, Request
from server.response import FrozenResponse
from server.session import Session
from stores import Delta, StoreUnavailable

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
RETRY_AFTER_S = 2

_SETTING = "session_manager"


def session_settings(manager: SessionManager, **settings: Any) -> dict[str, Any]:
    """Return the settings of an `Application` whose handlers use `SessionMixin`.

    Switches on the form token check and Tornado's `cross_origin_protection`. Further *settings* are added;
    `login_url` is `/login` unless given.
    """
    defaults = {"login_url": "/login", "xsrf_cookies": True, "cross_origin_protection": True}
    return {**defaults, **settings, _SETTING: manager}


class SessionMixin(RequestHandler):
    """Gives a handler `self.session`. Put it before `RequestHandler` in the bases.

    An overridden `prepare` must `await super().prepare()` first.
    """

    session_activity = True
    """Whether this handler's requests count as activity of the session."""

    _session: Session | None = None
    _accessed = False
    _retry_after = False
    _sid: SessionId | None = None
    _sid_is_read = False

    # --- what a handler uses ---

    @property
    def session(self) -> Session:
        """The session of this request.

        Raises:
            RuntimeError: Before `SessionMixin.prepare` has run.
        """
        if self._session is None:
            raise RuntimeError("the session is not loaded yet: await super().prepare() first")
        self._accessed = True
        return self._session

    @property
    def sessions(self) -> SessionManager:
        """The manager that `session_settings` was given."""
        return cast(SessionManager, self.settings[_SETTING])

    def get_current_user(self) -> str | None:
        """Return who is signed in, for `self.current_user` and `@tornado.web.authenticated`."""
        if self._session is None and self._status_code >= 400:
            return None  # an error before prepare(): its page may still ask
        return self.session.user

    def client_address(self) -> str:
        """Return the address to show for this client; override where a proxy tells it."""
        return self.request.remote_ip or ""

    # --- load ---

    async def prepare(self) -> None:
        """Load the session: one store call, none without a cookie."""
        overridden = super().prepare()
        if overridden is not None:
            await overridden
        if self._finished:
            return
        agent = self.request.headers.get("User-Agent", "")
        request = Request(
            Client(self.client_address(), agent),
            is_safe=self.request.method in SAFE_METHODS,
            may_set_cookie=self.sessions.secure or self._is_loopback(),
        )
        self._session = await self.sessions.load(self._presented(), request)
        if isinstance(self, WebSocketHandler):
            # A commit at 101 would hang the client: no response follows that could carry it.
            self._session.seal("a WebSocket handshake saves nothing")

    def _presented(self) -> SessionId | None:
        if not self._sid_is_read:
            self._sid = self.sessions.cookies.read(self.request.headers.get_list("Cookie"))
            self._sid_is_read = True
        return self._sid

    def _is_loopback(self) -> bool:
        return is_loopback(self.request.remote_ip or "") and is_loopback(self.request.host_name)

    # --- save ---

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        """Save what the handler changed, then send the response; a 5xx drops the changes.

        Returns:
            A future that resolves when the response was sent, or could not be.
        """
        if self._finished or self._session is None:
            return super().finish(chunk)
        delta = self._delta_to_save(self._session)
        if delta is None:
            self._touch(self._session)
            return super().finish(chunk)
        if chunk is not None:
            self.write(chunk)
        response = FrozenResponse(self)
        self._session.seal("the response is finished")
        # Tornado must take the response for finished, or it runs the handler after a redirect in prepare().
        self._finished = True
        return cast(
            "Future[None]", self.sessions.spawn(self._save_then_finish(self._session, delta, response))
        )

    def _delta_to_save(self, session: Session) -> Delta | None:
        if self._status_code >= 500:
            session.forget()
            return None
        delta = session.pending()
        if delta is not None and self._headers_written:
            gen_log.error(
                "a session value changed after the first flush and was not saved: %s", session.handle
            )
            session.forget()
            return None
        return delta

    async def _save_then_finish(self, session: Session, delta: Delta, response: FrozenResponse) -> None:
        try:
            await session.save(delta)
        except Exception:  # whatever a store raises, the client gets an answer
            self._reopen(response)
            session.forget()
            self._answer_exception()
            return
        self._reopen(response)
        try:
            await super().finish()
        except StreamClosedError:
            pass  # the client hung up; what it asked for is saved
        except Exception:  # as Tornado does for one from finish() in the handler
            self._answer_exception()

    def _reopen(self, response: FrozenResponse) -> None:
        self._finished = False
        response.restore(self)

    def _answer_exception(self) -> None:
        error = sys.exc_info()[1]
        assert error is not None
        self._handle_request_exception(error)

    def _touch(self, session: Session) -> None:
        if self.session_activity and session.record is not None and session.cookie is CookieChange.KEEP:
            self.sessions.touch(session)

    def flush(self, include_footers: bool = False) -> Future[None]:
        """Send what was written so far; the session must be saved first.

        Raises:
            RuntimeError: Session changes are pending: `await self.session.commit()` before.
        """
        if not self._headers_written and self._session is not None:
            if not include_footers and self._session.pending() is not None:
                raise RuntimeError(
                    "the session has unsaved changes: await self.session.commit() before flush()"
                )
            self._write_session_headers(self._session)
        if not self._headers_written and self._retry_after:
            self.set_header("Retry-After", str(RETRY_AFTER_S))
        return super().flush(include_footers)

    def _write_session_headers(self, session: Session) -> None:
        cookies = self.sessions.cookies
        session.seal("the response has begun")
        if session.cookie is CookieChange.SET and session.sid is not None:
            cookies.write(self, session.sid)
        elif session.cookie is CookieChange.CLEAR:
            cookies.clear(self)
        is_new_user = session.cookie is CookieChange.SET and session.user is not None
        if is_new_user and cookies.read_nonce(self.request.headers.get_list("Cookie")):
            cookies.clear_nonce(self)
        elif session.reserved is not None:
            cookies.write_nonce(self, session.reserved)
        changes_cookie = session.cookie is not CookieChange.KEEP or session.reserved is not None
        self._restrict_caching(session, is_private=changes_cookie or session.user is not None)

    def _restrict_caching(self, session: Session, *, is_private: bool) -> None:
        if is_private or self._accessed:
            self._vary_by_cookie()
        is_private = is_private or (session.presence is Presence.LIVE and not session.read_nothing)
        if is_private and "Cache-Control" not in self._headers:
            self.set_header("Cache-Control", "no-store")

    def _vary_by_cookie(self) -> None:
        vary = ", ".join(self._headers.get_list("Vary"))
        names = {name.strip().lower() for name in vary.split(",")}
        if not names & {"cookie", "*"}:
            self.set_header("Vary", f"{vary}, Cookie" if vary else "Cookie")

    # --- errors ---

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answer a session's or a store's error with its own status; see `server.errors`."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        if isinstance(error, SessionError):
            status_code = error.status
        elif isinstance(error, StoreUnavailable | Busy):
            status_code = 503
            self._retry_after = True
        if isinstance(error, SessionError | StoreUnavailable) and not self._headers_written:
            self.__dict__.pop("_new_cookie", None)
            if self._session is not None:
                self._session.forget()
        super().send_error(status_code, **kwargs)

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log the errors that have their own answer in one line, without a trace."""
        if isinstance(value, SessionError | StoreUnavailable | Busy):
            cause = f" ({type(value.__cause__).__name__})" if value.__cause__ else ""
            gen_log.warning(
                "%s %s: %s%s", self.request.method, self.request.path, type(value).__name__, cause
            )
        else:
            super().log_exception(typ, value, tb)

    # --- form tokens ---

    @property
    def xsrf_token(self) -> bytes:
        """The token for a form of this response, bound to what the browser will hold."""
        return self.sessions.forms.make(self._form_basis()).encode()

    def _form_basis(self) -> str:
        session = self._session
        if session is None:
            raise RuntimeError("form tokens need the session: await super().prepare() first")
        holds = session.sid is not None and session.cookie is not CookieChange.CLEAR
        return session.sid.secret if holds and session.sid is not None else session.reserve()

    def check_xsrf_cookie(self) -> None:
        """Refuse an unsafe request without the token of a form rendered for this browser.

        Tornado runs this before `prepare`, so it reads the signed cookie and asks no store. A body of type
        application/json is exempt: no page of another site can send one without asking first.
        """
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0]
        if media_type.strip().lower() == "application/json":
            return
        cookies = self.request.headers.get_list("Cookie")
        sid = self._presented()
        basis = sid.secret if sid is not None else self.sessions.cookies.read_nonce(cookies)
        token = (
            self.get_body_argument("_xsrf", None)
            or self.request.headers.get("X-Xsrftoken")
            or self.request.headers.get("X-Csrftoken")
        )
        if not token or basis is None or not self.sessions.forms.check(token, basis):
            raise HTTPError(403, "the form token is missing, or was made for another session")

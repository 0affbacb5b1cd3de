"""`SessionMixin`: the session of a Tornado request, loaded in `prepare`, saved before the first byte.

The order of things in Tornado 6.6 that this builds on: the body is parsed, `check_xsrf_cookie` runs,
`prepare`, the method, `finish`. Each private name of `RequestHandler` used here is pinned by a test.
"""

from __future__ import annotations

from asyncio import CancelledError, Future
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any

from tornado.concurrent import future_set_result_unless_cancelled
from tornado.log import app_log, gen_log
from tornado.websocket import WebSocketHandler

from stormcellar.errors import InsecureTransport, SessionError, answer_of
from stormcellar.sessions.json_values import NotJSON
from stormcellar.sessions.manager import SessionManager
from stormcellar.sessions.request_info import CookieChange
from stormcellar.sessions.session import Session
from stormcellar.stores import Delta, StoreUnavailable
from stormcellar.web.csrf_mixin import SETTING, FormMixin
from stormcellar.web.held_response import CookieLines, FrozenResponse, settle_cookies, tell_caches
from stormcellar.web.reauthentication import ReauthenticationMixin
from stormcellar.web.tornado_request import Incoming


def session_settings(manager: SessionManager, **settings: Any) -> dict[str, Any]:
    """Return the settings of an `Application` whose handlers use `SessionMixin`.

    Switches on the form token check and Tornado's `cross_origin_protection`. Further *settings* are added;
    `login_url` is `/login` unless given.
    """
    defaults = {"login_url": "/login", "xsrf_cookies": True, "cross_origin_protection": True}
    return {**defaults, **settings, SETTING: manager}


class SessionMixin(ReauthenticationMixin, FormMixin):
    """Gives a handler `self.session`. Put it before `RequestHandler` in the bases.

    An overridden `prepare` must `await super().prepare()` first.
    """

    session_activity = True
    """Whether this handler's requests count as activity of the session."""

    _accessed = False
    _retry_after_s: int | None = None
    _answered: Future[None] | None = None
    """While the session is saved: resolves when the response was sent."""

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

    def get_current_user(self) -> str | None:
        """Return who is signed in, for `self.current_user` and `@tornado.web.authenticated`."""
        if self._session is None and self._status_code >= 400:
            return None  # an error before prepare(): its page may still ask
        return self.session.user

    # --- load ---

    async def prepare(self) -> None:
        """Load the session: one store call, none without a cookie."""
        overridden = super().prepare()
        if overridden is not None:
            await overridden
        if self._finished:
            return
        sessions, sid = self.sessions, self._presented()
        incoming = Incoming(self.request, self.client_address(), sessions.secure)
        if sid is None and sessions.cookies.is_presented(self.request.headers.get_list("Cookie")):
            sessions.reject(incoming)
        self._session = session = await sessions.load(sid, incoming)
        if self._headers_written:
            session.seal("the response has begun")
        elif isinstance(self, WebSocketHandler):
            # A commit at 101 would hang the client: no response follows that could carry it.
            session.seal("a WebSocket handshake saves nothing")

    # --- save ---

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        """Save what the handler changed, then send the response; a 5xx drops the changes.

        Returns:
            A future that resolves when the response was sent, or could not be.
        """
        session = self._session
        if self._finished or session is None:
            return super().finish(chunk)
        if chunk is not None:
            self.write(chunk)
        if session.is_unchanged and self.sessions.lifetime.renew_s is None:
            return self._finish_unchanged(session)
        if self._is_refused_by_tornado():
            return super().finish()
        delta, renew = self._delta_to_save(session), self._is_renewal_due(session)
        if delta is not None or renew or session.is_busy:
            return self._finish_when_saved(session, delta or Delta(), renew=renew)
        return self._finish_unchanged(session)

    def _finish_unchanged(self, session: Session) -> Future[None]:
        sent = super().finish()
        if self.session_activity and session.record is not None and session.cookie is CookieChange.KEEP:
            self.sessions.touch(session)
        return sent

    def _is_refused_by_tornado(self) -> bool:
        """Whether finish() raises for this body, which must not be told after the session was saved."""
        has_no_body = self._status_code in (204, 304) or 100 <= self._status_code < 200
        return has_no_body and bool(self._write_buffer)

    def _delta_to_save(self, session: Session) -> Delta | None:
        if self._status_code >= 500:
            session.forget()
        elif session.sealed:
            _drop_late_changes(session)
        else:
            try:
                return session.pending()
            except NotJSON:
                session.forget()  # or the error page would fail over it again
                raise
        return None

    def _is_renewal_due(self, session: Session) -> bool:
        is_let = self.session_activity and not session.sealed and self._status_code < 500
        return is_let and self.sessions.wants_renewal(session)

    def _finish_when_saved(self, session: Session, delta: Delta, *, renew: bool) -> Future[None]:
        response = FrozenResponse(self)
        session.seal("the response is finished")
        self._answered = answered = Future[None]()
        # Tornado must take the response for finished, or it runs the handler after a redirect in prepare().
        self._finished = True
        self._hear_no_more()
        saving = session.save(delta, renew=renew)
        self.sessions.spawn(self._save_then_finish(session, saving, response, answered))
        return answered

    def _hear_no_more(self) -> None:
        """Do what makes Tornado leave a finished handler alone: no hang-up, no more body, no method."""
        request: Any = self.request
        request.connection.set_close_callback(None)
        for name in ("data_received", request.method.lower()):
            setattr(self, name, _ignore)

    async def _save_then_finish(
        self,
        session: Session,
        saving: Coroutine[Any, Any, None],
        response: FrozenResponse,
        answered: Future[None],
    ) -> None:
        try:
            await saving
        except (Exception, CancelledError) as error:  # whatever a store raises, the client gets an answer
            self._reopen(response)
            session.forget()
            self._answer_exception(error)
        else:
            self._reopen(response)
            try:
                # Not awaited: a client that reads slowly must not hold up a shutdown.
                sent = super().finish()
            except Exception as error:  # as Tornado does for one from finish() in the handler
                self._answer_exception(error)
            else:
                sent.add_done_callback(lambda _: future_set_result_unless_cancelled(answered, None))
                return
        future_set_result_unless_cancelled(answered, None)

    def _reopen(self, response: FrozenResponse) -> None:
        self._finished = False
        self._answered = None
        response.restore(self)

    def _answer_exception(self, error: BaseException) -> None:
        try:
            self._handle_request_exception(error)
        except Exception:
            app_log.error("Exception in exception handler", exc_info=True)

    # --- send ---

    def flush(self, include_footers: bool = False) -> Future[None]:
        """Send what was written so far; the session must be saved first.

        Raises:
            RuntimeError: Session changes are pending: `await self.session.commit()` before.
        """
        if self._answered is not None:
            return self._answered
        if not self._headers_written:
            if not include_footers:
                self._require_saved()
            self._write_session_headers()
        return super().flush(include_footers)

    def _require_saved(self) -> None:
        session = self._session
        if session is not None and (session.is_busy or session.pending() is not None):
            raise RuntimeError("the session has unsaved changes: await self.session.commit() before flush()")

    def check_etag_header(self) -> bool:
        """Compare with what the client has, if it says that it has anything."""
        return "If-None-Match" in self.request.headers and super().check_etag_header()

    def _write_session_headers(self) -> None:
        if "_new_cookie" in self.__dict__:
            settle_cookies(self)
        if self._retry_after_s is not None:
            self.set_header("Retry-After", str(self._retry_after_s))
        session, carries_secret, is_private = self._session, self._has_form, False
        if session is not None:
            session.sealed = "the response has begun"
            carries_secret |= session.cookie is not CookieChange.KEEP
            is_private = session.is_private
        if carries_secret:
            self._write_cookie()
            self._write_nonce()
        if carries_secret or is_private or self._accessed:
            tell_caches(self._headers, forbid=carries_secret or is_private, whatever_was_said=carries_secret)

    def _write_cookie(self) -> None:
        session = self._session
        if session is None:
            return
        cookies, lines = self.sessions.cookies, CookieLines(self._headers)
        if session.cookie is CookieChange.SET and session.sid is not None:
            cookies.write(lines, session.sid, max_age_s=self._cookie_max_age_s(session))
        elif session.cookie is CookieChange.CLEAR:
            cookies.clear(lines)

    def _cookie_max_age_s(self, session: Session) -> int | None:
        """Return how long the browser keeps the cookie; None: until it closes."""
        lasts = self.sessions.lifetime.remember_s is not None and session.is_remembered
        return self.sessions.deadline_left_s(session) if lasts else None

    # --- errors ---

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answer a session's or a store's error with its own status; see `stormcellar.errors`."""
        if self._answered is not None:
            gen_log.error("Cannot send error response after finish()")
            return
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        if (answer := answer_of(error)) is not None:
            status_code, self._retry_after_s = answer
        if not self._headers_written:
            self._has_form = False  # it goes with the body that send_error() drops
            if isinstance(error, SessionError | StoreUnavailable):
                self.__dict__.pop("_new_cookie", None)
                if self._session is not None:
                    self._session.forget()
        super().send_error(status_code, **kwargs)

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log the errors that have their own answer in one line, without a trace."""
        if isinstance(value, InsecureTransport):
            return  # logged where it was raised, with what to do about it
        if answer_of(value) is not None:
            line = f"{self.request.method} {self.request.path[:200]!r}"
            cause = f" ({type(value.__cause__).__name__})" if value and value.__cause__ else ""
            gen_log.warning("%s: %s%s", line, type(value).__name__, cause)
        else:
            super().log_exception(typ, value, tb)


def _drop_late_changes(session: Session) -> None:
    with suppress(NotJSON):
        if session.pending() is None:
            return
    gen_log.error("session %s changed too late to be saved: %s", session.handle, session.sealed)
    session.forget()


def _ignore(*args: object, **kwargs: object) -> None:
    """Stand in for a method of a handler whose response is finished."""

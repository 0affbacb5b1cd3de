"""`SessionMixin`: the session of a Tornado request, loaded in `prepare`, saved before the first byte.

The order in Tornado 6.6 that this relies on: the body is parsed, `check_xsrf_cookie` runs, then `prepare`,
the method and `finish`. A test pins each private name of `RequestHandler` that is used here.
"""

from __future__ import annotations

from asyncio import Future
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from inspect import iscoroutine
from types import TracebackType
from typing import Any

from tornado.log import gen_log
from tornado.websocket import WebSocketHandler

from stormcellar.errors import InsecureTransport, SessionEnded, SessionError
from stormcellar.sessions.data.json_values import NotJSON
from stormcellar.sessions.live.watched import Watched
from stormcellar.sessions.manager import SessionManager
from stormcellar.sessions.session import state_of
from stormcellar.sessions.state import SessionState
from stormcellar.stores import Delta, StoreUnavailable
from stormcellar.stores.errors import log_text
from stormcellar.web.csrf_mixin import CsrfMixin
from stormcellar.web.error_responses import answer_of
from stormcellar.web.login_required import guarded, require_login
from stormcellar.web.reauthentication import ReauthenticationMixin
from stormcellar.web.response import send_when_saved, settle_cookies, write_session_headers
from stormcellar.web.sent_again import commit_with_cookie
from stormcellar.web.session_handler import SETTING, SessionHandler
from stormcellar.web.tornado_request import TornadoRequest
from stormcellar.web.while_live import while_live


def session_settings(manager: SessionManager, **settings: Any) -> dict[str, Any]:
    """Return the settings of an `Application` whose handlers use `SessionMixin`.

    Switches on the form token check and Tornado's `cross_origin_protection`. Further *settings* are added;
    `login_url` is `/login` unless given.

    Raises:
        ValueError: *settings* contains `stormcellar`, the setting that holds the manager.
    """
    if SETTING in settings:
        raise ValueError(f"the setting {SETTING!r} is reserved for the session manager; rename yours")
    defaults = {"login_url": "/login", "xsrf_cookies": True, "cross_origin_protection": True}
    return {**defaults, **settings, SETTING: manager}


class SessionMixin(ReauthenticationMixin, CsrfMixin):
    """Gives a handler `self.session`. Put it before every other base class.

    An overridden `prepare` must `await super().prepare()` first. That loads the session, and then calls the
    `prepare` of the next base class, which can use the session.
    """

    session_activity = True
    """Whether this handler's requests count as activity of the session."""
    login_required = False
    """Whether the handler is for signed-in users only. A visitor's GET is redirected to `login_url` (303),
    any other request is answered 403, and neither the next `prepare` nor the method runs."""

    def get_current_user(self) -> Any:
        """Return who is signed in, for `self.current_user` and `@tornado.web.authenticated`."""
        return self.session.user

    @property
    def current_user(self) -> Any:
        """The result of `get_current_user`, called once, and again after `login` and `logout`.

        A handler may assign another value, which is valid until then.
        """
        held = self._stormcellar
        if held.current_user is None or held.current_user[0] != held.sign_in:
            user = self.get_current_user()
            if iscoroutine(user):
                user.close()
                # A coroutine is true, so `login_required` and `authenticated` would let everybody in.
                raise TypeError("get_current_user() must not be a coroutine function")
            held.current_user = held.sign_in, user
        return held.current_user[1]

    @current_user.setter
    def current_user(self, value: Any) -> None:
        self._stormcellar.current_user = self._stormcellar.sign_in, value

    # --- load ---

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make sure that a `prepare` of the application's own lets no visitor past `login_required`."""
        super().__init_subclass__(**kwargs)
        if cls.prepare is not SessionMixin.prepare:
            cls.prepare = guarded(cls.prepare)  # type: ignore[method-assign, assignment]

    async def prepare(self) -> None:
        """Load the session, then call the `prepare` of the next base class. A second call does nothing."""
        held = self._stormcellar
        if held.is_prepared or self._finished:
            return
        held.is_prepared = True
        await load_session(self)
        if self.login_required and not self._finished and not self.current_user:
            require_login(self)
        elif (prepared := super().prepare()) is not None:
            await prepared

    # --- long handlers ---

    def while_session_lives(self) -> AbstractAsyncContextManager[Watched]:
        """Cancel a block when the session is over: signed out, expired, replaced, in whatever process::

            async with self.while_session_lives() as watched:
                await send_everything()
            if watched.end is not None: ...

        The statement then ends without an error. `watched.ended` is an `asyncio.Event`, and
        `watched.on_end` takes a callback, for work that must not be cancelled.

        Raises:
            SessionEnded: There is no session.
        """
        record = self.session.record
        if record is None:
            raise SessionEnded
        return while_live(self.sessions.watch, record)

    # --- save ---

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        """Save what the handler changed, then send the response; a 5xx drops the changes.

        Returns:
            A future that resolves when the response was sent, or could not be.

        Raises:
            RuntimeError: A verb of the session, such as `login`, was called without `await`.
        """
        held = self._stormcellar
        state = held.state
        if self._finished or state is None:
            return super().finish(chunk)
        if state.called and self._status_code < 400:
            state.require_awaited()
        if chunk is not None:
            self.write(chunk)
        if not state.is_unchanged or held.sessions.sends_unasked:
            if self._write_buffer and _has_no_body(self._status_code):
                return super().finish()  # it raises, which must happen before the session is saved
            delta = _delta_to_save(self, state)
            commit = commit_with_cookie(held) if self.session_activity and self._status_code < 500 else None
            if delta is not None or commit is not None or state.is_busy:
                save = partial(commit or held.sessions.lifecycle.commit, state, delta or Delta())
                return send_when_saved(self, held, save, super().finish)
        return super().finish()

    # --- send ---

    def flush(self, include_footers: bool = False) -> Future[None]:
        """Send what was written so far; the session must be saved first.

        Raises:
            RuntimeError: Session changes are pending: `await self.session.commit()` before.
        """
        held = self._stormcellar
        if held.answered is not None:
            return held.answered
        if not self._headers_written:
            if held.state is not None and not include_footers:
                _require_saved(held.state)
            if "_new_cookie" in self.__dict__:
                settle_cookies(self)
            if held.retry_after_s is not None:
                self.set_header("Retry-After", str(held.retry_after_s))
            write_session_headers(held, self._headers)
        return super().flush(include_footers)

    def check_etag_header(self) -> bool:
        """Compare the ETag only if the client sent one: computing it takes time."""
        return "If-None-Match" in self.request.headers and super().check_etag_header()

    # --- errors ---

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answer an error of the session layer or of the store with its status; see `error_responses`."""
        held = self._stormcellar
        if held.answered is not None:
            gen_log.error("Cannot send error response after finish()")
            return
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        if (answer := answer_of(error)) is not None:
            status_code, held.retry_after_s = answer
        if not self._headers_written:
            held.has_form = False  # send_error() drops the body that contains it
            if isinstance(error, SessionError | StoreUnavailable):
                self.__dict__.pop("_new_cookie", None)
                if held.state is not None:
                    held.state.drop_data()
        super().send_error(status_code, **kwargs)

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log errors that have their own status in one line, without a traceback."""
        if isinstance(value, InsecureTransport):
            return  # logged where it was raised, with what to do about it
        if answer_of(value) is not None:
            line = f"{self.request.method} {self.request.path[:200]!r}"
            cause = f" ({type(value.__cause__).__name__})" if value and value.__cause__ else ""
            reason = log_text(value) if isinstance(value, StoreUnavailable) else type(value).__name__ + cause
            gen_log.warning("%s: %s", line, reason)
        else:
            super().log_exception(typ, value, tb)


async def load_session(handler: SessionMixin) -> None:
    """Load the session of *handler*: one store call, none without a cookie. Record its activity."""
    held = handler._stormcellar
    request = TornadoRequest(handler.request, handler.client_address(), held.sessions.secure)
    if held.sid is None and held.has_cookie:
        held.sessions.reject(request)
    held.session = session = await held.sessions.load(held.sid, request)
    held.state = state = state_of(session)
    if handler._headers_written:
        state.seal("the response has begun")
    elif isinstance(handler, WebSocketHandler):
        # No response follows a handshake (101) that could carry a cookie; a save would hang the client.
        state.seal("a WebSocket handshake saves nothing")
    # At once, so that the session does not expire while the handler runs.
    if state.record is not None and handler.session_activity:
        held.sessions.touch(state)


def _delta_to_save(handler: SessionHandler, state: SessionState) -> Delta | None:
    """Return what a response with the present status saves: nothing with a 5xx."""
    if handler._status_code >= 500:
        state.drop_data()
    elif state.sealed:
        _drop_late_changes(state)
    else:
        try:
            return state.data.pending()
        except NotJSON:
            state.drop_data()  # or the error page would fail for the same reason
            raise
    return None


def _drop_late_changes(state: SessionState) -> None:
    with suppress(NotJSON):
        if state.data.pending() is None:
            return
    gen_log.error("session %s changed too late to be saved: %s", state.handle, state.sealed)
    state.drop_data()


def _has_no_body(status_code: int) -> bool:
    return status_code in (204, 304) or 100 <= status_code < 200


def _require_saved(state: SessionState) -> None:
    if state.is_busy or state.data.pending() is not None:
        raise RuntimeError("the session has unsaved changes: await self.session.commit() before flush()")
